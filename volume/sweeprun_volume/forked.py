"""Processes of our own that may die without harm: whoever asks them does the work himself then.

For what can end a process without an exception. A mapped file that is truncated, or that the storage under it loses,
raises SIGBUS, and volumes are hostile.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
from collections.abc import Sequence
from typing import Any, Callable, NoReturn, Optional

Answer = Callable[[Any], Any]
"""Runs in the child. Takes and returns what JSON carries; None, and any exception: it could not be done there."""


_LOOKS = 100


def may_fork() -> bool:
    """Whether this process has one thread: another one may hold a lock that the child would wait for in vain."""
    if threading.active_count() > 1:
        return False
    try:
        for _ in range(_LOOKS):
            if len(os.listdir("/proc/self/task")) == 1:
                return True
            os.sched_yield()  # one that was joined takes a moment more to go
    except OSError:  # another system, where nobody can tell
        pass
    return False


class Forked:
    """A child that answers one request after the other, and ends when this process does or with end()."""

    def __init__(self, answer: Answer, *, beside: Sequence[Forked]) -> None:
        """`beside` are those that were made before: a child keeps none of their pipes open.

        Raises OSError where no process can be made.
        """
        ends: list[int] = []
        try:
            ends.extend(os.pipe())
            ends.extend(os.pipe())
            self._child = os.fork()
        except OSError:
            for descriptor in ends:
                os.close(descriptor)
            raise
        taken, requests, answers, given = ends
        if self._child == 0:
            for descriptor in (requests, answers, *(each for other in beside for each in other._descriptors())):
                os.close(descriptor)
            _serve(answer, taken, given)
        os.close(taken)
        os.close(given)
        self._requests = os.fdopen(requests, "wb", 0)
        self._answers = os.fdopen(answers, "rb")
        self._alive = True

    def ask(self, request: Any) -> Any:
        """The answer; None where it could not be done there, and from then on where the child died."""
        if not self._alive:
            return None
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            line = self._answers.readline()
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            self._alive = False
            return None
        return json.loads(line)

    def end(self) -> None:
        """No process and no descriptor is left of it."""
        self._requests.close()
        self._answers.close()
        os.kill(self._child, signal.SIGKILL)  # waited for by nobody else: the number is still its own
        os.waitpid(self._child, 0)

    def _descriptors(self) -> tuple[int, int]:
        return self._requests.fileno(), self._answers.fileno()


def _serve(answer: Answer, taken: int, given: int) -> NoReturn:
    """Until the pipe is closed. Nothing that the parent would do at its end happens here."""
    try:
        _take_leave()
        with os.fdopen(taken, "rb") as requests, os.fdopen(given, "wb", 0) as answers:
            for line in requests:
                answers.write(json.dumps(_answered(answer, json.loads(line))).encode() + b"\n")
    finally:
        os._exit(0)


def _answered(answer: Answer, request: Any) -> Optional[Any]:
    try:
        return answer(request)
    except Exception:  # noqa: BLE001 - the parent does it again, and tells what is wrong
        return None


def _take_leave() -> None:
    """Signals are the parent's to handle: a terminal's reaches both. A death here is no news, and leaves no core."""
    for number in (signal.SIGTERM, signal.SIGBUS):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    if most:
        resource.setrlimit(resource.RLIMIT_CORE, (1, most))  # 1 means none to a program that takes cores as well
