"""Runs schedules, several at a time, against one control plane; says which diverged, and how to replay them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from support.cluster import PATHS, Cluster
from support.control_plane import ControlPlane
from support.manifests import make_claim
from support.played import NODE

from .history import KINDS, Historian
from .invariants import violations
from .operators import Operator, adapted
from .patience import Patience, StuckError, within
from .player import Player
from .scenarios import SCENARIOS, Scenario, outcome
from .schedule import Kind, Ledger, Schedule
from .upstream import Upstream
from .wire import Wire

Raw = dict[str, Any]
LATE = (Kind.LATE, Kind.FREEZE)
CATCH_UP_SECONDS = 60.0
"""Until a watch has told what is there: beyond it, the watch is broken."""


@dataclass
class Told:
    """What became of one schedule."""

    schedule: Schedule
    outcome: Raw = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    struck: int = 0
    lives: int = 0
    seconds: float = 0.0
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        found = "\n".join(f"  {text}" for text in self.violations)
        return f"{self.schedule}: diverged\n{found}\n  replay: make faults ARGS='{self.schedule}'"


class Campaign:
    def __init__(self, plane: ControlPlane, upstream: Upstream, historian: Historian, directory: Path) -> None:
        self._plane = plane
        self._upstream = upstream
        self._historian = historian
        self._directory = directory
        self._clients: list[Cluster] = []
        self._undisturbed: dict[str, Told] = {}
        self._asked: dict[str, asyncio.Lock] = {}

    async def all(
        self, schedules: Iterable[Schedule], *, at_once: int, told: Callable[[Told], None] = lambda _: None
    ) -> list[Told]:
        waiting = iter(schedules)
        done: list[Told] = []

        async def work() -> None:
            for schedule in waiting:
                found = await self.one(schedule)
                done.append(found)
                told(found)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
        return done

    async def undisturbed(self, name: str) -> Told:
        """How a scenario ends without faults, told once."""
        async with self._asked.setdefault(name, asyncio.Lock()):
            if name not in self._undisturbed:
                self._undisturbed[name] = await self.tell(Schedule(name))
            return self._undisturbed[name]

    async def one(self, schedule: Schedule, *, ahead: timedelta | None = None) -> Told:
        """Compared with how the scenario ends undisturbed. `ahead`: the clock of the first process."""
        usual = await self.undisturbed(schedule.scenario)
        assert not usual.violations, f"nothing was disturbed, and {usual}"
        found = await self.tell(schedule, ahead=ahead)
        if found.outcome != usual.outcome and not found.violations:
            found.violations.append(f"it ended otherwise: {found.outcome}\n  instead of {usual.outcome}")
        return found

    async def tell(
        self, schedule: Schedule, *, ahead: timedelta | None = None, scenario: Scenario | None = None
    ) -> Told:
        """Judged by the invariants and by what its scenario fixes; `scenario`: one that SCENARIOS does not have."""
        scenario = scenario if scenario is not None else SCENARIOS[schedule.scenario]
        began = time.monotonic()
        told = Told(schedule)
        ledger = Ledger(schedule.faults)
        namespace = self._historian.of(f"faults-{secrets.token_hex(5)}")
        wire = Wire(self._upstream, namespace, ledger)
        count = 2 if any(fault.kind is Kind.FREEZE for fault in schedule.faults) else 1
        made = [Operator(wire, self._directory, ahead=ahead if number == 0 else None) for number in range(count)]
        client = self._clients.pop() if self._clients else self._plane.cluster()
        player = Player(namespace, client.in_namespace(namespace.name))
        try:
            await self._play(told, scenario, player, wire, made)
        except (StuckError, AstrayError) as error:
            told.violations.append(f"{error}: {_where(player)}")
        except Exception:  # noqa: BLE001  told with the schedule
            told.violations.append(traceback.format_exc())
        finally:
            await asyncio.gather(*(operator.stop() for operator in made))
            await wire.close()
            self._historian.forget(namespace.name)
            await asyncio.to_thread(_clear, client.in_namespace(namespace.name))
            self._clients.append(client)
        told.violations += [f"a bug: {bug!r}" for operator in made for bug in operator.bugs]
        told.counts, told.struck, told.trace = ledger.counts, len(ledger.struck), wire.trace
        told.lives = sum(operator.lives for operator in made)
        told.seconds = time.monotonic() - began
        return told

    async def _play(self, told: Told, scenario: Scenario, player: Player, wire: Wire, made: list[Operator]) -> None:
        cluster, name = player.cluster, player.namespace.name
        await asyncio.to_thread(cluster.create, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        await asyncio.to_thread(cluster.create, make_claim())
        await asyncio.to_thread(cluster.create, scenario.manifest())
        for operator in made:
            operator.start()
        try:
            await Patience(player.namespace, wire).over(player.play(_Script(scenario, player).over))
            await wire.settled()
        finally:
            await within(CATCH_UP_SECONDS, self._historian.caught_up(player.namespace))
            late = any(fault.kind in LATE for fault in told.schedule.faults)
            told.violations += violations(player.namespace.in_order(), wire.applied, late=late)
        told.outcome = outcome(player.status)
        told.violations += _otherwise(told.outcome, scenario.ends)


def _where(player: Player) -> str:
    status = player.status
    current = {
        key: status.get("current", {}).get(key) for key in ("state", "attempt", "prepare", "interruption", "doubt")
    }
    children = [name for kind in ("Job", "PyTorchJob", "Pod") for name in player.namespace.objects[kind]]
    return f"{status.get('phase')} {current} {children} {outcome(status)['history']}"


class AstrayError(Exception):
    """The scenario cannot go on."""


class _Script:
    def __init__(self, scenario: Scenario, player: Player) -> None:
        self._scenario = scenario
        self._player = player
        self._steps = list(scenario.steps)

    async def over(self) -> bool:
        attempts, most = self._player.status.get("counts", {}).get("attempts", 0), self._scenario.attempts
        if attempts > most:
            raise AstrayError(f"{attempts} attempts, where {most} are all that was asked for")
        if not self._steps:
            return bool(self._scenario.over(self._player))
        look, act = self._steps[0]
        if look(self._player):
            self._steps.pop(0)
            await asyncio.to_thread(act, self._player)
        return False


def _otherwise(found: Raw, wanted: Raw) -> list[str]:
    said = []
    for name, value in wanted.items():
        got = found.get(name)
        if isinstance(value, dict):
            got = {key: (got or {}).get(key, 0) for key in value}
        if got != value:
            said.append(f"{name} is {got}, not {value}")
    return said


def _clear(cluster: Cluster) -> None:
    """What thousands of schedules leave would fill the API server's memory."""
    for kind in (*KINDS, "Event"):
        path = PATHS[kind].format(namespace=cluster.namespace)
        cluster.call("DELETE", path, json={"gracePeriodSeconds": 0, "propagationPolicy": "Background"})


def _node(plane: ControlPlane) -> None:
    """The one on which everything runs: a node that is not there has taken its pods with it."""
    cluster = plane.cluster()
    cluster.ensure({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "played"}
    cluster.patch("Node", NODE, {"status": {"conditions": [ready]}}, subresource="/status")


@contextlib.asynccontextmanager
async def campaign(plane: ControlPlane) -> AsyncIterator[Campaign]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))
    await asyncio.to_thread(_node, plane)
    with tempfile.TemporaryDirectory(prefix="sweeprun-faults-") as directory, adapted():
        async with Upstream(plane) as upstream, Historian(upstream) as historian:
            yield Campaign(plane, upstream, historian, Path(directory))
