"""SIGTERM as a flag that training asks for between two steps.

A Python signal handler does not run while the main thread waits in a collective, which is where training spends its
time (seen on a cluster: the handler of a survivor ran 5 s late, or never). The interpreter's wake-up descriptor is
written by the C handler at once, so that a thread knows the moment of the signal.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, Callable, Optional

from .ranks import Ranks

_SIGNALS = (signal.SIGTERM,)


LOOK_SECONDS = 0.25
"""Between two times that ranks ask each other whether one of them was told to stop."""
MOST_CALLS = 32
"""Bounds how late they ask where steps become slow of a sudden."""
ANSWER_SECONDS = 0.02
"""From the question to the call at which its answer is taken: long enough that none waits for it."""
SLOW_SECONDS = 1.0
"""Steps as slow as this take the answer at once: the grace is short for them, and the wait nothing."""


class StopFlag:
    def __init__(self) -> None:
        self._set = threading.Event()
        self._since: Optional[float] = None
        self._writer: Optional[socket.socket] = None

    def install(self) -> None:
        """Raises RuntimeError outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("sweeprun_trainer.current() takes over SIGTERM: call it in the main thread")
        before_us: dict[int, Any] = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        os.register_at_fork(after_in_child=lambda: self._release(before_us))
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if before != -1:  # an event loop's: it stays, and the handler above has to do
            signal.set_wakeup_fd(before)
            reader.close()
            writer.close()
            return
        # kept open for as long as signals may come: for ever
        self._writer = writer
        threading.Thread(target=self._listen, args=(reader,), name="sweeprun-stop", daemon=True).start()

    @property
    def is_set(self) -> bool:
        return self._set.is_set()

    @property
    def seconds(self) -> float:
        """Since the signal; 0 where none came."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def raise_flag(self) -> None:
        if not self._set.is_set():
            self._since = time.monotonic()
            self._set.set()

    def _release(self, before: Mapping[int, Any]) -> None:
        """In a forked child, as workers of data loaders and pools are: they end by SIGTERM when they are not needed any
        more, which must neither be ignored nor raise the flag of their parent, whose wake-up descriptor they share."""
        for number, handler in before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._writer is not None:
            found = signal.set_wakeup_fd(-1)
            if found not in (-1, self._writer.fileno()):
                signal.set_wakeup_fd(found)

    def _handle(self, _number: int, _frame: Optional[FrameType]) -> None:
        self.raise_flag()

    def _listen(self, reader: socket.socket) -> None:
        while data := reader.recv(64):
            if any(number in data for number in _SIGNALS):
                self.raise_flag()


class StopTogether:
    """The flags of all ranks as one, which rises on all of them at the same call.

    An all-reduce at every step would cost short steps more than a percent, and most of that is waiting for the others
    to be given a processor. So ranks agree, each time that they ask each other, on the call at which they will do it
    next, and on the call, soon after that one, at which they take the answer: by then it is there.
    """

    def __init__(self, flag: StopFlag, ranks: Ranks) -> None:
        self._flag = flag
        self._ranks = ranks
        self._stopping = False
        self._answer: Optional[Callable[[], list[int]]] = None
        """To the question that was asked; None: the next comes first."""
        self._left = 1
        """Calls until the next question, or until its answer is taken."""
        self._patience = 0
        """Calls from a question to its answer."""
        self._calls = 1
        """From one question to the next."""
        self._asked_at = time.monotonic()

    def should_stop(self) -> bool:
        """Collective, once for each step or for some. Everything that is decided on here is the same on all ranks."""
        if self._ranks.world == 1:
            return self._flag.is_set
        if self._stopping:
            return True
        self._left -= 1
        if self._left == 0 and self._answer is None:
            self._ask()
        if self._left == 0 and self._answer is not None:
            self._hear(self._answer())
        return self._stopping

    def _ask(self) -> None:
        now = time.monotonic()
        microseconds = max(1, int((now - self._asked_at) / self._calls * 1e6))
        self._asked_at = now
        self._answer = self._ranks.most([int(self._flag.is_set), microseconds])
        self._left = self._patience

    def _hear(self, answer: Sequence[int]) -> None:
        stopping, slowest = answer
        self._stopping = bool(stopping)
        self._answer = None
        calls = max(1, min(MOST_CALLS, int(LOOK_SECONDS * 1e6 / slowest)))
        self._left = max(1, calls - self._patience)
        self._calls = self._patience + self._left
        slow = slowest >= SLOW_SECONDS * 1e6
        self._patience = 0 if slow else min(MOST_CALLS, math.ceil(ANSWER_SECONDS * 1e6 / slowest))
