"""Plays the kubelet: pods of the store become processes, and their ends become status as Kubernetes writes it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .containers import Machine, Program, UnplayableError, program
from .processes import Running, message
from .store import Raw, Store, timestamp

PORT_ENV = "SWEEPRUN_PORT"
HOUSEKEEPING_SECONDS = 0.1
"""From a deleted pod's last status to its removal; a second or so on real nodes."""

Before = Callable[[Raw], None]
Plays = Callable[[Raw, Raw, bool], bool]
"""Whether a container of a pod is played here; the flag says that it is an init container."""


@dataclass(slots=True)
class _Life:
    """A pod on this machine."""

    task: asyncio.Task[None]
    directory: Path
    port: int
    running: Running | None = None
    stopping: bool = False
    deadline: asyncio.TimerHandle | None = None
    removal: asyncio.TimerHandle | None = None
    states: dict[str, dict[str, Any]] = field(default_factory=dict)


class Kubelet:
    def __init__(
        self,
        store: Store,
        machine: Machine,
        *,
        directory: Path,
        plays: Plays,
        before: Before,
        warn: Callable[[str], None],
    ) -> None:
        """`directory` takes logs and termination messages; `before` sees every pod before its processes start."""
        self._store = store
        self._machine = machine
        self._directory = directory
        self._plays = plays
        self._before = before
        self._warn = warn
        self._lives: dict[str, _Life] = {}

    def sync(self) -> None:
        """Start what is new, stop what is to go, remove what has gone."""
        for pod in self._store.find("Pod"):
            uid = pod["metadata"]["uid"]
            life = self._lives.get(uid)
            deleting = bool(pod["metadata"].get("deletionTimestamp"))
            if life is None and not deleting:
                self._lives[uid] = self._begin(pod)
            elif deleting and life is None:
                self._store.finalize("Pod", pod)
            elif deleting and life is not None and life.task.done():
                self._remove_later(pod, life)
            elif deleting and life is not None and not life.stopping:
                self._stop(life, pod["metadata"].get("deletionGracePeriodSeconds", 0))

    def kill(self, pod_uid: str) -> bool:
        """SIGKILL to a pod's processes, as the kernel or a hardware fault would: no condition, no grace."""
        life = self._lives.get(pod_uid)
        if life is None or life.running is None:
            return False
        life.running.kill()
        return True

    def port(self, pod_uid: str) -> int | None:
        """Where the pod's entrypoint answers, while a process of it runs."""
        life = self._lives.get(pod_uid)
        return life.port if life is not None and life.running is not None else None

    def log(self, pod_uid: str, container: str) -> Path | None:
        life = self._lives.get(pod_uid)
        return life.directory / f"{container}.log" if life is not None else None

    async def close(self) -> None:
        """Kill every process."""
        for life in self._lives.values():
            life.stopping = True
            if life.running is not None:
                life.running.kill()
        tasks = [life.task for life in self._lives.values()]
        for life in self._lives.values():
            if life.running is None:
                life.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, pod: Raw) -> _Life:
        directory = self._directory / f"{pod['metadata']['name']}.{pod['metadata']['uid'][:8]}"
        directory.mkdir(parents=True)
        return _Life(task=asyncio.create_task(self._live(pod)), directory=directory, port=free_port())

    def _remove_later(self, pod: Raw, life: _Life) -> None:
        """The object goes a moment after its last status, which others have to see."""
        if life.removal is None:
            loop = asyncio.get_running_loop()
            life.removal = loop.call_later(HOUSEKEEPING_SECONDS, self._store.finalize, "Pod", pod)

    def _stop(self, life: _Life, grace_seconds: float) -> None:
        life.stopping = True
        if life.running is not None:
            life.running.terminate()
            life.deadline = asyncio.get_running_loop().call_later(grace_seconds, life.running.kill)

    async def _live(self, pod: Raw) -> None:
        life = self._lives[pod["metadata"]["uid"]]
        self._report(pod, life, phase="Pending", scheduled=True)
        self._before(pod)
        try:
            phase = await self._containers(pod, life)
        finally:
            life.running = None
            if life.deadline is not None:
                life.deadline.cancel()
        self._report(pod, life, phase=phase)

    async def _containers(self, pod: Raw, life: _Life) -> str:
        """The phase that the pod ends in."""
        for kind in ("initContainers", "containers"):
            for container in pod.get("spec", {}).get(kind, []):
                if not self._plays(pod, container, kind == "initContainers"):
                    continue
                if life.stopping or await self._container(pod, container, life, main=kind == "containers") != 0:
                    return "Failed"
        return "Succeeded"

    async def _container(self, pod: Raw, container: Raw, life: _Life, *, main: bool) -> int:
        name, directory = container["name"], life.directory
        log, said = directory / f"{name}.log", directory / f"{name}.message"
        started = timestamp()
        try:
            one = self._program(pod, container, life, said)
            running = await Running.start(one, log=log, pod_uid=pod["metadata"]["uid"])
        except (UnplayableError, OSError) as error:
            self._warn(str(error))
            ended = {
                "exitCode": 128,
                "reason": "StartError",
                "message": str(error),
                "startedAt": "1970-01-01T00:00:00Z",
            }
            self._state(pod, life, name, {"terminated": {**ended, "finishedAt": timestamp()}}, main=main)
            return 128
        life.running = running
        self._state(pod, life, name, {"running": {"startedAt": started}}, main=main)
        if life.stopping:
            # Asked to go while the process was being started.
            running.terminate()
            grace = self._grace(pod)
            life.deadline = asyncio.get_running_loop().call_later(grace, running.kill)
        code = await running.ended()
        life.running = None
        ended = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "message": message(said, log, code=code, fall_back=one.last_lines_as_message),
            "startedAt": started,
            "finishedAt": timestamp(),
        }
        self._state(pod, life, name, {"terminated": ended}, main=main)
        return code

    @staticmethod
    def _grace(pod: Raw) -> float:
        return float(pod.get("spec", {}).get("terminationGracePeriodSeconds", 30))

    def _program(self, pod: Raw, container: Raw, life: _Life, said: Path) -> Program:
        extra = {PORT_ENV: str(life.port)}
        return program(pod, container, self._machine, extra=extra, message_file=str(said))

    def _state(self, pod: Raw, life: _Life, name: str, state: dict[str, Any], *, main: bool) -> None:
        life.states[name] = {"name": name, "restartCount": 0, "state": state}
        self._report(pod, life, phase="Running" if main and "running" in state else None)

    def _report(self, pod: Raw, life: _Life, *, phase: str | None, scheduled: bool = False) -> None:
        inits = {container["name"] for container in pod.get("spec", {}).get("initContainers", [])}

        def edit(raw: Raw) -> None:
            status = raw.setdefault("status", {})
            if phase is not None:
                status["phase"] = phase
            if scheduled:
                status["startTime"] = timestamp()
                set_condition(status, "PodScheduled", "Scheduled", "")
            states = life.states.items()
            status["initContainerStatuses"] = [state for name, state in states if name in inits]
            status["containerStatuses"] = [state for name, state in states if name not in inits]

        self._store.change("Pod", pod, edit)


def set_condition(status: Raw, kind: str, reason: str, text: str, *, value: str = "True") -> None:
    conditions = [item for item in status.get("conditions", []) if item.get("type") != kind]
    made = {"type": kind, "status": value, "reason": reason, "message": text, "lastTransitionTime": timestamp()}
    status["conditions"] = [*conditions, made]


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on. Another process may take it before it is used."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
