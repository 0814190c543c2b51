"""The operator as its container runs it, started again whenever it ends: Lease, kopf's watches, resync, workers.

Each life is a thread with an event loop, a line and a memory of its own. It dies by its line, and sleeps, as after
SIGSTOP, where its event loop is blocked: its clock goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import ssl
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from support.operator_process import settings
from sweeprun_operator.builders.images import HelperImages
from sweeprun_operator.builders.manifests import Manifests
from sweeprun_operator.cluster.kubernetes_gateway import KubernetesGateway
from sweeprun_operator.controller.decisions import BoundDecisions
from sweeprun_operator.controller.lease import LeaseTimes
from sweeprun_operator.handlers import process
from sweeprun_operator.handlers.process import LeaseLostError, Process

from .patience import within
from .wire import Line, Wire

_log = logging.getLogger(__name__)

RESYNC_SECONDS = 1.5
"""180 in an installation."""
RESTART_SECONDS = 0.1
TIMES = LeaseTimes(duration=4, renew=0.5, give_up=3.0, look=0.1)
"""A quarter of an installation's: a busy machine must not lose what nobody took."""
END_SECONDS = 20.0
SCALED = {
    "sweeprun_operator.core.classify.DELETION_SECONDS": 0.4,
    "sweeprun_operator.core.failures.DOUBT_SECONDS": 1.5,
    "sweeprun_operator.core.failures.LOOK_SECONDS": 0.5,
    "sweeprun_operator.core.draining.LOOK_SECONDS": 1.0,
    "sweeprun_operator.core.preparing.DRAIN_SECONDS": 1.0,
    "sweeprun_operator.core.attempts.WAIT_SECONDS": 1.0,
    "sweeprun_operator.controller.resync.RETRY_SECONDS": 0.5,
    "sweeprun_operator.controller.resync.PAGE": 1,
    "sweeprun_operator.handlers.doorbell.FIRST_BACKOFF": 0.3,
    "sweeprun_operator.cluster.kubernetes_gateway.CALL_SECONDS": 4.0,
    "sweeprun_operator.cluster.kubernetes_gateway.PAGE": 1,
}
"""Timers, so that a schedule takes seconds; and pages, so that small lists have continue tokens."""


class Operator:
    """Lives one after another, until `stop`."""

    def __init__(self, wire: Wire, directory: Path, *, name: str = "", ahead: timedelta | None = None) -> None:
        """`ahead`: the wall clock of its machine, against the others'."""
        self.lives = 0
        self.bugs: list[BaseException] = []
        self._wire = wire
        self._directory = directory
        self._name = name or f"operator-{secrets.token_hex(4)}"
        self._ahead = ahead or timedelta()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._remains: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._live())

    async def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            await self._task
        await asyncio.gather(*list(self._remains))

    async def _live(self) -> None:
        while not self._stopping.is_set():
            line = await self._wire.line()
            life = _Life(line, self._kubeconfig(line), self._wire.namespace.name, self._name, self._ahead)
            self.lives += 1
            life.start()
            ends = [asyncio.create_task(wait()) for wait in (line.dead.wait, self._stopping.wait, life.ended.wait)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
            # A successor does not wait until what is left of a dead process has been cleared away.
            remains = asyncio.create_task(self._bury(life, line))
            self._remains.add(remains)
            remains.add_done_callback(self._remains.discard)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), RESTART_SECONDS)

    async def _bury(self, life: _Life, line: Line) -> None:
        life.stop()
        try:
            await within(END_SECONDS, life.ended.wait())
        except TimeoutError:
            self.bugs.append(AssertionError(f"a process was told to stop and did not: {life.where()}"))
        await line.close()
        if life.bug is not None:
            self.bugs.append(life.bug)

    def _kubeconfig(self, line: Line) -> Path:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "wire", "cluster": {"server": line.url}}],
            "users": [{"name": "operator", "user": {"token": "none"}}],
            "contexts": [{"name": "wire", "context": {"cluster": "wire", "user": "operator"}}],
            "current-context": "wire",
        }
        path = self._directory / f"{self._wire.namespace.name}-{line.number}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path


class _Life:
    def __init__(self, line: Line, kubeconfig: Path, namespace: str, name: str, ahead: timedelta) -> None:
        self.ended = asyncio.Event()
        self.bug: BaseException | None = None
        self._line = line
        self._settings = settings(kubeconfig, namespace, identity=name, resync_seconds=RESYNC_SECONDS, workers=2)
        self._ahead = ahead
        self._outside = asyncio.get_running_loop()
        self._inside: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"operator-{line.number}", daemon=True)
        line.freeze = self._freeze

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._wanted.set()
        inside, stop = self._inside, self._stop
        if inside is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended by itself
                inside.call_soon_threadsafe(stop.set)

    def where(self) -> str:
        """What its thread and the tasks of its loop are at."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        said = "".join(traceback.format_stack(frame)[-4:]) if frame is not None else "ended"
        for task in asyncio.all_tasks(self._inside) if self._inside is not None else ():
            said += f"\n{task.get_coro()}: {task.get_stack(limit=3)}"
        return said

    def _freeze(self) -> Callable[[], None]:
        thaw = threading.Event()
        assert self._inside is not None
        self._inside.call_soon_threadsafe(thaw.wait, 30)
        return thaw.set

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except LeaseLostError:
            _log.debug("the Lease is lost")
        except OSError as error:
            _log.debug("it cannot work: %s", error)
        except BaseException as error:  # noqa: BLE001  reported with the schedule
            self.bug = error
        self._outside.call_soon_threadsafe(self.ended.set)

    async def _work(self) -> None:
        self._inside, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._wanted.is_set():
            return
        _AHEAD.set(self._ahead)
        decisions = BoundDecisions(Manifests(HelperImages(image="sweeprun/operator:test")))
        async with await KubernetesGateway.connect(self._settings.kubeconfig) as gateway:
            await Process(gateway, decisions, self._settings, lease_times=TIMES).run(self._stop)


_AHEAD: ContextVar[timedelta] = ContextVar("ahead", default=timedelta())


@contextlib.contextmanager
def adapted() -> Iterator[None]:
    """Timers scaled down, and the clock, which would be one per machine, is one per thread. The machine's certificates,
    which nobody needs here, are read once: reading them would be a tenth of what a schedule costs."""
    with pytest.MonkeyPatch.context() as patch:
        for path, value in SCALED.items():
            patch.setattr(path, value)
        now = process._now
        patch.setattr(process, "_now", lambda: now() + _AHEAD.get())
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield
