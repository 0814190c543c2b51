"""Beside the command: what the library says, which checkpoints appear, whether a later epoch was claimed."""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable
from typing import Optional

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.layout import parse_step_name
from sweeprun_volume.fence import later_claim

from .channel import Receiver
from .log import say
from .progress import Progress, step_of_entry
from .settings import Settings
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
        receiver: Optional[Receiver],
    ) -> None:
        self._place = place
        self._progress = progress
        self._settings = settings
        self._fenced = fenced
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
        fence_at = time.monotonic() + self._settings.fence_seconds
        while not self._stop.wait(min(self._settings.sample_seconds, self._settings.fence_seconds)):
            self.sample()
            if time.monotonic() >= fence_at:
                fence_at = time.monotonic() + self._settings.fence_seconds
                self.check_fence()

    def _listen(self) -> None:
        assert self._receiver is not None, "started for it"
        with selectors.DefaultSelector() as selector:
            selector.register(self._receiver, selectors.EVENT_READ)
            while not self._stop.is_set():
                if selector.select(1.0):
                    self._drain()
