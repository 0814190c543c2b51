"""`exec -- COMMAND`: the start check before it, the watch beside it, its end after it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Callable, NoReturn, Optional

from sweeprun_protocol.environ import EnvironError, PodEnvironment, RunEnvironment
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_protocol.records import EndRecord
from sweeprun_volume.clock import Clock

from .channel import PROGRESS_SOCKET, Receiver
from .command import STOPPING, Command
from .ending import (
    MAX_PATIENCE_SECONDS,
    MAX_PUBLISH_SECONDS,
    MIN_PUBLISH_SECONDS,
    is_leader,
    publish_end,
    wait_for_peers,
    within,
    write_termination_message,
)
from .log import say
from .progress import Progress
from .serve import serve
from .settings import Settings
from .start import Place, StartRefusedError, check_start
from .watch import Watch

SHUTDOWN_TIMEOUT = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""torchrun kills its workers this many seconds after a signal; 30 unless told, whatever the pod's grace."""
SHUTDOWN_MARGIN = 5
SAMPLE_SECONDS = 2.0


class _StoppedEarly(BaseException):
    """Passes every `except Exception` on its way out."""

    def __init__(self, number: int) -> None:
        self.number = number


def execute(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command as one slot of an attempt; returns the exit code of the container."""
    try:
        settings = Settings.read(environ)
        place = Place.of(RunEnvironment.decode(environ), PodEnvironment.decode(environ))
    except EnvironError as error:
        say(str(error))
        return ExitCode.CONFIGURATION
    progress = Progress(base_step=place.run.resume_step)
    for number in STOPPING:  # process 1 ignores what it does not handle
        signal.signal(number, _stop_early)
    child = Command()
    try:
        check_start(place, clock=Clock(), settle_seconds=settings.settle_seconds)
        child.forward_signals()
    except StartRefusedError as error:
        say(error.message)
        return error.code
    except _StoppedEarly as stopped:
        say("told to stop before the command was started")
        return 128 + stopped.number
    return _Execution(place, settings, progress, child).run(command, environ)


def _stop_early(number: int, _frame: Optional[FrameType]) -> NoReturn:
    raise _StoppedEarly(number)


class _Execution:
    def __init__(self, place: Place, settings: Settings, progress: Progress, child: Command) -> None:
        self._place = place
        self._settings = settings
        self._progress = progress
        self._command = child
        self._fenced = threading.Event()

    def run(self, command: Sequence[str], environ: Mapping[str, str]) -> int:
        receiver = _receiver()
        watch = Watch(self._place, self._progress, settings=self._settings, fenced=self._on_fenced, receiver=receiver)
        watch.remember()
        # the child is forked before the first thread is made
        failed = self._command.start(command, child_environ(environ, self._place.run.grace_seconds, receiver))
        if failed is not None:
            say(f"{command[0]} cannot be started: {'not found' if failed == 127 else 'not executable'}")
            return self._end(failed)
        watch.start()
        serve(self._place, self._progress.snapshot, settings=self._settings)
        code = self._command.wait()
        told = self._command.told_to_stop
        watch.finish()
        if self._fenced.is_set():
            return self._end(ExitCode.FENCED, told=told)
        within(SAMPLE_SECONDS, watch.sample)
        return self._end(code, told=told)

    def _end(self, code: int, *, told: bool = False) -> int:
        place, now = self._place, self._progress.snapshot()
        record = EndRecord(
            epoch=place.run.epoch,
            slot=place.pod.slot,
            pod_uid=place.pod.pod_uid,
            exit_code=code,
            told_to_stop=told,
            completed=now.completed,
            last_step=now.step,
            first_step_seconds=now.first_step_seconds,
            time=Clock().now(),
        )
        patience = max(place.run.grace_seconds / 4, MIN_PUBLISH_SECONDS)
        publish_end(place, record, seconds=min(patience, MAX_PUBLISH_SECONDS))
        write_termination_message(record, self._settings.termination_log)
        if is_leader(place) and (code == 0 or not told) and code != ExitCode.FENCED:
            patience = min(place.run.grace_seconds / 2, MAX_PATIENCE_SECONDS)
            within(patience + 1, lambda: wait_for_peers(place, seconds=patience, stop=self._told_again(told)))
        return code

    def _told_again(self, told: bool) -> Callable[[], bool]:
        """The pod has to go now, though it had all the time until then."""
        return lambda: self._command.told_to_stop and not told

    def _on_fenced(self, later: int) -> None:
        """Killed, not asked: a polite end would close the W&B run that the later epoch's attempt writes."""
        self._fenced.set()
        say(f"epoch {later} was claimed: this attempt, of {self._place.run.epoch}, is over")
        self._command.kill()


def _receiver() -> Optional[Receiver]:
    try:
        return Receiver()
    except OSError as error:
        say(f"steps will be seen by checkpoints only: {error}")
        return None


def child_environ(environ: Mapping[str, str], grace_seconds: int, receiver: Optional[Receiver]) -> dict[str, str]:
    """What the command sees: our own environment, and what only this process can know."""
    values = dict(environ)
    values.setdefault(SHUTDOWN_TIMEOUT, str(max(grace_seconds - SHUTDOWN_MARGIN, 1)))
    if receiver is not None:
        values[PROGRESS_SOCKET] = receiver.name
    return values
