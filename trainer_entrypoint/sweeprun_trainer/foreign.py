"""Checkpoints that another library writes and reads, as Lightning's and transformers' Trainers do: where they go, which
one is loaded, and when one counts."""

from __future__ import annotations

import os
import posixpath
from typing import Callable, Optional, TypeVar

from sweeprun_protocol.environ import CHECKPOINT_DIR, RESUME_FROM
from sweeprun_protocol.reasons import Format
from sweeprun_volume.operations import DIRECTORY, Volume

from .agreement import NotAgreedError, Pinned, agree
from .channel import Sender
from .ranks import Ranks

OUTSIDE_DIRECTORY = "checkpoints"
"""Below the working directory, outside a SweepRun."""

T = TypeVar("T")


def checkpoint_directory() -> str:
    """Absolute path of the directory that this attempt writes checkpoints into; it may not exist yet."""
    return os.path.abspath(os.environ.get(CHECKPOINT_DIR) or OUTSIDE_DIRECTORY)


def resume_path() -> Optional[str]:
    """Absolute path of the checkpoint that this attempt starts from; None: it starts at step 0, as outside a SweepRun.

    Every rank is told the same one. It was read and found whole before this process was started.
    """
    return os.environ.get(RESUME_FROM) or None


class ForeignCheckpoints:
    """Made by Run.foreign_checkpoints(). Every method but committed() is collective."""

    def __init__(
        self, volume: Volume, ranks: Ranks, sender: Sender, pinned: Pinned, *, leave: Callable[[int], object]
    ) -> None:
        """`volume` is the checkpoint directory; `leave` is told the exit code of a process that ends here."""
        self._volume = volume
        self._ranks = ranks
        self._sender = sender
        self._pinned = pinned
        self._leave = leave

    @property
    def rank(self) -> int:
        return self._ranks.rank

    @property
    def step(self) -> int:
        """The step that is done at the resume point; 0: training starts at the beginning."""
        return self._pinned.step

    def agree(self, problem: Optional[str] = None) -> None:
        """Before a checkpoint is loaded: all ranks were told of the same one, and see it.

        Args:
            problem: what this rank has against it.

        Raises:
            NotAgreedError: on all ranks, where any of them has a problem, or was told of another one.
        """
        try:
            agree(self._ranks, self._pinned, problem or self._problem())
        except NotAgreedError as error:
            # W&B's client learns the code from sys.exit alone, and would call this a good end
            self._leave(error.exit_code)
            raise

    def _problem(self) -> Optional[str]:
        path = resume_path()
        if path is None:
            return None
        if self._pinned.format == str(Format.SWEEPRUN):
            return f"{path} was written by this library's checkpointer(), which has to restore it"
        return None if os.path.exists(path) else f"{path} is not there"

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order, on every rank."""
        return self._ranks.gather(value)

    def publish(self, staging: str, final: str, *, step: int) -> None:
        """Make a whole checkpoint durable and give it its name, under which nobody ever sees it unfinished.

        Args:
            staging: a file or a directory in the checkpoint directory, whose name begins with a dot.
            final: the name it gets; nothing has it.

        Raises:
            OSError: on all ranks.
        """
        problem: Optional[str] = None
        if self._ranks.leads:
            try:
                _sync(self._volume, staging)
                if not self._volume.move(staging, final):
                    problem = "the name is taken"
            except Exception as error:  # noqa: BLE001 - whatever it is: leaving here would leave the others waiting
                problem = str(error) or type(error).__name__
        problem = self._ranks.share(problem)
        if problem is not None:
            raise OSError(f"{final} cannot be committed: {problem}")
        self.committed(step)

    def make_durable(self, name: str, *, step: int) -> None:
        """The same for one that was written under its final name.

        Raises:
            OSError: on all ranks.
        """
        problem: Optional[str] = None
        try:
            # every rank its own node's pages
            _sync(self._volume, name)
            self._volume.sync_name(name)
        except Exception as error:  # noqa: BLE001 - as above
            problem = f"rank {self._ranks.rank}: {str(error) or type(error).__name__}"
        problem = next((told for told in self._ranks.gather(problem) if told is not None), None)
        if problem is not None:
            raise OSError(f"{name} cannot be made durable: {problem}")
        self.committed(step)

    def committed(self, step: int) -> None:
        self._sender.send({"step": step, "committed": step})


def _sync(volume: Volume, path: str) -> None:
    facts = volume.facts(path)
    if facts is None or facts.kind != DIRECTORY:
        volume.sync_file(path)
        return
    for entry in volume.entries(path):
        _sync(volume, posixpath.join(path, entry.name))
    volume.sync_directory(path)
