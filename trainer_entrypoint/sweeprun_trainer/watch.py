"""Beside the command: what the library says, which checkpoints appear, whether a later epoch was claimed."""

from __future__ import annotations

import posixpath
import selectors
import threading
import time
from collections.abc import Callable, Hashable
from typing import Optional

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.layout import parse_step_name
from sweeprun_volume.fence import later_claim

from .channel import Receiver
from .log import say
from .progress import Progress, step_of_entry
from .settings import Settings
from .stall import LOOKS, MOST_LOOKED_AT, Stall
from .start import VOLUME_ERRORS, Place

MAX_DRAINED = 1024
"""Messages taken in a row; the kernel keeps 10 to 512 of them."""


class Watch:
    """Everything here fails open: a volume that does not answer is told once, and training goes on."""

    def __init__(
        self,
        place: Place,
        progress: Progress,
        *,
        settings: Settings,
        fenced: Callable[[int], None],
        stalled: Callable[[int], None],
        receiver: Optional[Receiver],
    ) -> None:
        """`fenced` is told the epoch of a later claim; `stalled` for how many seconds nothing happened."""
        self._place = place
        self._progress = progress
        self._settings = settings
        self._fenced = fenced
        self._stalled = stalled
        self._receiver = receiver
        self._stop = threading.Event()
        self._known: Optional[frozenset[str]] = None
        """Names that were there before the command; None: not seen yet."""
        self._told: set[str] = set()
        self._receiving = threading.Lock()

    def remember(self) -> None:
        """Before the command starts: what is there already is not its doing."""
        names = self._entries()
        self._known = frozenset(names) if names is not None else None

    def start(self) -> None:
        loops = [self._look, self._listen] if self._receiver is not None else [self._look]
        for loop in loops:
            threading.Thread(target=loop, name=f"sweeprun{loop.__name__}", daemon=True).start()

    def finish(self) -> None:
        """The command has ended: take what it said last, then nothing more is watched."""
        self._stop.set()
        self._drain()

    def _drain(self) -> None:
        # a lock: a message that the other thread has taken counts when this returns. Bounded: what the command left
        # running may send for ever
        with self._receiving:
            for _ in range(MAX_DRAINED):
                if self._receiver is None or not self._take_one(self._receiver):
                    break

    def _take_one(self, receiver: Receiver) -> bool:
        """False where no message is waiting."""
        try:
            message = receiver.receive()
            if message is not None:
                self._progress.heard(message)
        except RecordError as error:
            self._tell_once("message", f"a progress message was not understood: {error}")
            return True
        return message is not None

    def sample(self) -> None:
        """Look at the names in the checkpoint directory; what is new since the start is this attempt's."""
        names = self._entries()
        if names is None:
            return
        if self._known is None:
            self._known = frozenset(names)
        for name in names:
            step = step_of_entry(name, epoch=self._place.run.epoch)
            if step is not None and (name not in self._known or parse_step_name(name)):
                self._progress.committed(step)

    def check_fence(self) -> None:
        """A later claim means that the run goes on elsewhere: nothing this process writes counts any more."""
        try:
            later = later_claim(self._place.volume, self._place.layout, epoch=self._place.run.epoch)
        except VOLUME_ERRORS as error:
            self._tell_once("claims", f"later claims cannot be seen, training goes on: {error}")
            return
        self._told.discard("claims")
        if later is not None:
            self._stop.set()
            self._fenced(later)

    def check_stall(self, stall: Stall, limit_seconds: int) -> None:
        """Tell `stalled` once nothing has changed for so long: no report, nothing in the checkpoint directory."""
        seen, now = self._signs(), time.monotonic()
        if seen is None:
            stall.was_blind(now)
        elif stall.is_over(seen, now):
            self._stop.set()
            self._stalled(limit_seconds)

    def _signs(self) -> Optional[Hashable]:
        """What changes with progress; None where the checkpoint directory cannot be read."""
        names = self._entries()
        if names is None:
            return None
        told = self._progress.snapshot()
        epoch, directory = self._place.run.epoch, self._place.checkpoint_directory
        nameless = [name for name in names if step_of_entry(name, epoch=epoch) is None][-MOST_LOOKED_AT:]
        try:
            facts = tuple(self._place.volume.facts(posixpath.join(directory, name)) for name in nameless)
        except VOLUME_ERRORS:  # it went between two requests, which is a sign as well
            facts = ()
        return (told.reports, told.committed_step, told.completed, tuple(names), facts)

    def _entries(self) -> Optional[list[str]]:
        """None where the directory cannot be read."""
        try:
            names = [entry.name for entry in self._place.volume.entries(self._place.checkpoint_directory)]
        except VOLUME_ERRORS as error:
            self._tell_once("checkpoints", f"checkpoints cannot be seen, training goes on: {error}")
            return None
        self._told.discard("checkpoints")
        return names

    def _tell_once(self, subject: str, message: str) -> None:
        """Until it answers again; messages that nobody understands: once for all."""
        if subject not in self._told:
            self._told.add(subject)
            say(message)

    def _look(self) -> None:
        pause = min(self._settings.sample_seconds, self._settings.fence_seconds)
        began, limit = time.monotonic(), self._place.run.stall_seconds
        every = max(pause, limit / LOOKS) if limit is not None else pause
        stall = Stall(limit, every_seconds=every, now=began) if limit is not None else None
        fence_at, stall_at = began + self._settings.fence_seconds, began + every
        while not self._stop.wait(pause):
            self.sample()
            now = time.monotonic()
            if now >= fence_at:
                fence_at = now + self._settings.fence_seconds
                self.check_fence()
            if stall is not None and limit is not None and now >= stall_at and not self._stop.is_set():
                stall_at = now + every
                self.check_stall(stall, limit)

    def _listen(self) -> None:
        assert self._receiver is not None, "started for it"
        with selectors.DefaultSelector() as selector:
            selector.register(self._receiver, selectors.EVENT_READ)
            while not self._stop.is_set():
                if selector.select(1.0):
                    self._drain()
