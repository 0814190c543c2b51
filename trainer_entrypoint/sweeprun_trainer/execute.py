"""`exec -- COMMAND`: the start check before it, the watch beside it, its end after it; `check`: the check alone."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from types import FrameType
from typing import Callable, NoReturn, Optional

from sweeprun_protocol.environ import (
    SHUTDOWN_TIMEOUT,
    SLOTS,
    EnvironError,
    PodEnvironment,
    RunEnvironment,
    shutdown_seconds,
)
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_protocol.records import EndRecord
from sweeprun_volume.clock import Clock

from .channel import PROGRESS_SOCKET, Receiver
from .command import STOPPING, Command
from .ending import (
    MIN_PUBLISH_SECONDS,
    is_leader,
    patience,
    publish_end,
    publish_seconds,
    wait_for_peers,
    within,
    write_termination_message,
)
from .log import say
from .processes import initial_environment
from .progress import Progress
from .serve import serve
from .settings import Settings
from .start import Place, StartRefusedError, check_start
from .watch import Watch

SAMPLE_SECONDS = 2.0
COERCED = "LC_CTYPE"
"""The interpreter sets it for itself where the locale is C (PEP 538)."""


class _StoppedEarly(BaseException):
    """Passes every `except Exception` on its way out."""

    def __init__(self, number: int) -> None:
        self.number = number


def execute(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command as one slot of an attempt; returns the exit code of the container.

    Without a command the slot is checked and taken, and that is all: what the image starts by itself follows.
    """
    child = Command()
    try:
        for number in STOPPING:  # process 1 ignores what it does not handle
            signal.signal(number, _stop_early)
        settings, place = _read(environ)
        progress = Progress(base_step=place.run.resume_step)
        check_start(place, clock=Clock(), settle_seconds=settings.settle_seconds, unwrapped=not command)
        child.forward_signals()
    except EnvironError as error:
        say(str(error))
        return ExitCode.CONFIGURATION
    except StartRefusedError as error:
        say(error.message)
        return error.code
    except _StoppedEarly as stopped:
        say("told to stop before the command was started")
        return 128 + stopped.number
    if not command:
        return ExitCode.COMPLETED
    return _Execution(place, settings, progress, child).run(command, environ)


def _read(environ: Mapping[str, str]) -> tuple[Settings, Place]:
    """Raises EnvironError."""
    settings = Settings.read(environ)
    place = Place.of(RunEnvironment.decode(environ), PodEnvironment.decode(environ))
    if place.pod.slot not in place.run.slots:
        raise EnvironError(f"this pod is {place.pod.slot}, which is not in {SLOTS}={','.join(place.run.slots)}")
    return settings, place


def _stop_early(number: int, _frame: Optional[FrameType]) -> NoReturn:
    for other in STOPPING:  # said twice, it must not interrupt the answer to the first
        signal.signal(other, signal.SIG_IGN)
    raise _StoppedEarly(number)


class _Execution:
    def __init__(self, place: Place, settings: Settings, progress: Progress, child: Command) -> None:
        self._place = place
        self._settings = settings
        self._progress = progress
        self._command = child
        self._later: Optional[int] = None
        """Epoch of a later claim, once one is seen."""
        self._stalled = False

    def run(self, command: Sequence[str], environ: Mapping[str, str]) -> int:
        receiver = _receiver()
        watch = Watch(
            self._place,
            self._progress,
            settings=self._settings,
            fenced=self._on_fenced,
            stalled=self._on_stalled,
            receiver=receiver,
        )
        watch.remember()
        # the child is forked before the first thread is made
        values = child_environ(environ, self._place.run.grace_seconds, receiver, given=initial_environment())
        failed = self._command.start(command, values)
        if failed is not None:
            say(f"{command[0]} cannot be started: {self._command.problem}")
            return self._end(failed)
        self._begin_beside(watch)
        code = self._command.wait()
        stops, stalled = self._command.stops, self._stalled
        watch.finish()
        if self._later is not None:
            self._command.kill_the_rest()
            say(f"epoch {self._later} was claimed: this attempt, of {self._place.run.epoch}, is over")
            return self._end(ExitCode.FENCED, stops=stops)
        if stalled:
            self._command.kill_the_rest()
            code = ExitCode.STALLED
        elif stops:
            self._command.see_the_rest_out(self._grace_left())
        within(SAMPLE_SECONDS, watch.sample)
        return self._end(code, stops=stops)

    def _begin_beside(self, watch: Watch) -> None:
        try:
            watch.start()
            serve(self._place, self._progress.snapshot, settings=self._settings)
        except RuntimeError as error:  # no thread left below the container's limit of processes
            say(f"training goes on unwatched: {error}")

    def _end(self, code: int, *, stops: Optional[int] = None) -> int:
        """`stops`: how often the command was told to stop before it ended."""
        place, now = self._place, self._progress.snapshot()
        stops = self._command.stops if stops is None else stops
        record = EndRecord(
            epoch=place.run.epoch,
            slot=place.pod.slot,
            pod_uid=place.pod.pod_uid,
            exit_code=code,
            told_to_stop=stops > 0,
            completed=now.completed,
            last_step=now.step,
            first_step_seconds=now.first_step_seconds,
            time=Clock().now(),
        )
        publish_end(place, record, seconds=publish_seconds(place.run.grace_seconds))
        write_termination_message(record, self._settings.termination_log)
        if is_leader(place) and code != ExitCode.FENCED:
            self._wait_for_peers(record, stops)
        return code

    def _grace_left(self) -> float:
        """Of the pod, less what recording the end may take."""
        grace = self._place.run.grace_seconds
        stopped_at = self._command.stopped_at
        assert stopped_at is not None, "it was told to stop"
        return grace - (time.monotonic() - stopped_at) - publish_seconds(grace) - MIN_PUBLISH_SECONDS

    def _wait_for_peers(self, record: EndRecord, stops: int) -> None:
        stopped_at = self._command.stopped_at
        gone = time.monotonic() - stopped_at if stopped_at is not None else 0.0
        seconds = patience(record, grace_seconds=self._place.run.grace_seconds, since_told=gone)
        if seconds > 0:
            within(seconds + 1, lambda: wait_for_peers(self._place, seconds=seconds, stop=self._told_since(stops)))

    def _told_since(self, stops: int) -> Callable[[], bool]:
        """The pod has to go now, whatever it was told before."""
        return lambda: self._command.stops > stops

    def _on_fenced(self, later: int) -> None:
        """Killed, not asked: a polite end would close the W&B run that the later epoch's attempt writes."""
        self._later = later
        self._command.kill()

    def _on_stalled(self, seconds: int) -> None:
        """Asked first: a rank that only waits for its peers may still save what it has."""
        if self._command.told_to_stop or self._command.ended:
            return  # it is leaving, and the kubelet bounds that
        self._stalled = True
        step = self._progress.snapshot().step
        reached = f"step {step}" if step is not None else "no step"
        say(f"no progress for {seconds} s (spec.limits.stallTimeoutSeconds), {reached} was seen: the command is ended")
        self._command.stop()
        killing = threading.Timer(self._place.run.grace_seconds, self._command.kill)
        killing.daemon = True
        killing.start()


def _receiver() -> Optional[Receiver]:
    try:
        return Receiver()
    except OSError as error:
        say(f"steps will be seen by checkpoints only: {error}")
        return None


def child_environ(
    environ: Mapping[str, str], grace_seconds: int, receiver: Optional[Receiver], *, given: Optional[Collection[str]]
) -> dict[str, str]:
    """What the command sees: the container's environment, and what only this process can know.

    Args:
        given: names of the variables that the container has; None where the system does not tell.
    """
    values = dict(environ)
    if given is not None and COERCED not in given:
        values.pop(COERCED, None)
    values.setdefault(SHUTDOWN_TIMEOUT, str(shutdown_seconds(grace_seconds)))
    if receiver is not None:
        values[PROGRESS_SOCKET] = receiver.name
    return values
