"""Actors on one volume, interleaved call by call.

Every actor is a thread that waits for its turn before each call that changes names or looks at one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from .network_cache import NetworkFileSystem
from .volume_crash import DiedError


class Turns:
    """Stands in for `os` in sweeprun_volume.operations: an actor waits before a call until it is its turn."""

    STOPS = frozenset({"stat", "scandir", "link", "rename", "mkdir", "unlink", "rmdir"})

    def __init__(self, linked: Callable[[str], None], below: Any = os) -> None:
        self._linked = linked
        self._below = below
        self._mine = threading.local()

    def take(self, actor: Actor) -> None:
        self._mine.actor = actor

    def begin(self, actor: Actor) -> None:
        """The next calls are those of its node."""
        if isinstance(self._below, NetworkFileSystem):
            self._below.act_as(actor.node)

    def wait(self) -> None:
        actor = getattr(self._mine, "actor", None)
        if actor is not None:
            actor.wait()

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._below, name)
        if name not in self.STOPS:
            return call

        def waiting(*arguments: Any, **options: Any) -> Any:
            self.wait()
            found = call(*arguments, **options)
            if name == "link":
                self._linked(os.path.join(os.readlink(f"/proc/self/fd/{options['dst_dir_fd']}"), arguments[1]))
            return found

        return waiting


class Actor:
    """Something that acts on the volume, one call at a time."""

    def __init__(self, turns: Turns, name: str, act: Callable[[], None], *, node: str) -> None:
        self.name = name
        self.node = node
        self.over = False
        self.error: BaseException | None = None
        self._doomed = False
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._turns, self._act = turns, act
        threading.Thread(target=self._live, name=name, daemon=True).start()

    def step(self) -> None:
        self._go.release()
        self._done.acquire()

    def die(self) -> None:
        self._doomed = True
        self.step()

    def wait(self) -> None:
        self._done.release()
        self._go.acquire()
        if self._doomed:
            raise DiedError(self.name)
        self._turns.begin(self)

    def _live(self) -> None:
        self._turns.take(self)
        self._go.acquire()
        self._turns.begin(self)
        try:
            if not self._doomed:
                self._act()
        except DiedError:
            pass
        except BaseException as error:  # noqa: BLE001 - told to the one who plays
            self.error = error
        self.over = True
        self._done.release()
