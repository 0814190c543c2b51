"""What the ranks of one attempt tell each other: over gloo, in a group of its own, whatever training itself uses."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Callable, Optional, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class PeerLostError(RuntimeError):
    """A rank is gone, or did not answer in time; what the ranks were about to do together did not happen."""


class Ranks:
    """Every method but the constructor's attributes is collective. PeerLostError: a peer is gone, or hangs."""

    def __init__(self, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._group: Optional[Any] = None
        self.rank, self.world = 0, 1
        if dist.is_available() and dist.is_initialized():
            self.rank, self.world = dist.get_rank(), dist.get_world_size()
        if self.world > 1:
            # object collectives over NCCL need a GPU, and block for minutes on a dead peer
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_seconds))
            # gloo's threads must end before the interpreter does, or C++ ends the process with SIGABRT (seen)
            atexit.register(self._close)

    def sibling(self) -> Ranks:
        """The same ranks in another group, for another thread: two threads in one group would mix up their words."""
        return Ranks(timeout_seconds=self._timeout_seconds)

    def _close(self) -> None:
        # the script may have destroyed all groups, this one with them
        if dist.is_initialized():
            with contextlib.suppress(ValueError):
                dist.destroy_process_group(self._group)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def group(self) -> Optional[Any]:
        """For collectives of others, as those of torch.distributed.checkpoint; None: this rank is the only one."""
        return self._group

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order, on every rank."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self.world
        with self._told():
            dist.all_gather_object(values, value, group=self._group)
        return values

    def share(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self._group is None:
            return value
        values: list[Any] = [value]
        with self._told():
            dist.broadcast_object_list(values, src=0, group=self._group)
        shared: T = values[0]
        return shared

    def most(self, values: Sequence[int]) -> Callable[[], list[int]]:
        """Asks for the highest of each number over all ranks; the cheapest of all. What it returns gives the answer.

        Collective are both calls. Time between them is time in which the ranks need not wait for each other.
        """
        if self._group is None:
            return lambda: list(values)
        highest = torch.tensor(values, dtype=torch.int64)
        with self._told():
            work = dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=self._group, async_op=True)

        def answer() -> list[int]:
            with self._told():
                work.wait()
            return [int(value) for value in highest.tolist()]

        return answer

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise PeerLostError(f"a rank is gone, or silent for {self._timeout_seconds:g} s: {error}") from error
