"""Beside the command: what the library says, which checkpoints appear, whether a later epoch was claimed."""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable
from typing import Optional

from sweeprun_protocol.codec import RecordError
from sweeprun_volume.fence import later_claim

from .channel import Receiver
from .log import say
from .progress import Progress, step_of_entry
from .settings import Settings
from .start import VOLUME_ERRORS, Place


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
        self._known: frozenset[str] = frozenset()
        self._silent_since: Optional[float] = None

    def remember(self) -> None:
        """Before the command starts: what is there already is not its doing."""
        self._known = frozenset(self._entries())

    def start(self) -> None:
        loops = [self._look, self._listen] if self._receiver is not None else [self._look]
        for loop in loops:
            threading.Thread(target=loop, name=f"sweeprun{loop.__name__}", daemon=True).start()

    def finish(self) -> None:
        """The command has ended: take what it said last, then nothing more is watched."""
        self._stop.set()
        self._drain()

    def _drain(self) -> None:
        while self._receiver is not None and self._take_one(self._receiver):
            pass

    def _take_one(self, receiver: Receiver) -> bool:
        """False where no message is waiting."""
        try:
            message = receiver.receive()
            if message is not None:
                self._progress.heard(message)
        except RecordError as error:
            say(f"a progress message was not understood: {error}")
            return True
        return message is not None

    def sample(self) -> None:
        """Look at the names in the checkpoint directory; what is new since the start is this attempt's."""
        for name in self._entries():
            step = step_of_entry(name, epoch=self._place.run.epoch)
            if step is not None and name not in self._known:
                self._progress.committed(step)

    def check_fence(self) -> None:
        """A later claim means that the run goes on elsewhere: nothing this process writes counts any more."""
        try:
            later = later_claim(self._place.volume, self._place.layout, epoch=self._place.run.epoch)
        except VOLUME_ERRORS as error:
            self._tell_once(error)
            return
        self._silent_since = None
        if later is not None:
            self._stop.set()
            self._fenced(later)

    def _entries(self) -> list[str]:
        try:
            return [entry.name for entry in self._place.volume.entries(self._place.checkpoint_directory)]
        except VOLUME_ERRORS as error:
            self._tell_once(error)
            return []

    def _tell_once(self, error: Exception) -> None:
        if self._silent_since is None:
            self._silent_since = time.monotonic()
            say(f"the volume does not answer, training goes on: {error}")

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
