"""A data loader whose position is part of the checkpoint.

Making an iterator draws from the random generators, so these have to be restored after it exists. Here the iterator is
made while the state is loaded, and a checkpointer restores the generators last: the right order needs no care.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

import torch

from .stateful import RandomState


class ResumableLoader:
    """Wraps a torch DataLoader, or torchdata's StatefulDataLoader, for `per_rank` of a checkpointer.

    A `for` over it is one pass over the data; after a restore the first `for` goes on in the middle of the pass that
    was interrupted. `set_epoch` of a DistributedSampler is called with the number of each pass.

    A StatefulDataLoader goes on by its own state. A plain DataLoader begins the pass again as it had begun, with the
    same random state, and leaves out what was trained: exact with worker processes that draw random numbers as well,
    and it costs the time of loading what is left out.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self.epoch = 0
        """Passes that are done: the number of the one that runs, or comes next."""
        self._iterator: Optional[Iterator[Any]] = None
        self._position = 0
        """Batches given in this pass."""
        self._beginning: Optional[dict[str, Any]] = None
        """Random state with which this pass began."""
        self._restored = False
        found = [getattr(loader, "generator", None), getattr(getattr(loader, "sampler", None), "generator", None)]
        self._generators = [generator for generator in found if isinstance(generator, torch.Generator)]

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        if not self._restored:
            if self._iterator is not None:  # the pass before was left in the middle
                self.epoch += 1
            self._begin()
        self._restored = False
        return self._batches(self._iterator)

    def _batches(self, iterator: Any) -> Iterator[Any]:
        for batch in iterator:
            self._position += 1
            yield batch
        self._iterator, self._position, self._beginning = None, 0, None
        self.epoch += 1

    def _begin(self) -> None:
        set_epoch = getattr(getattr(self._loader, "sampler", None), "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self.epoch)
        self._position = 0
        self._beginning = {"global": RandomState().state_dict(), "own": self._own_states()}
        self._iterator = iter(self._loader)

    def _own_states(self) -> list[torch.Tensor]:
        return [generator.get_state() for generator in self._generators]

    def _set_own_states(self, states: list[torch.Tensor]) -> None:
        for generator, state in zip(self._generators, states):
            generator.set_state(state)

    @property
    def _stateful(self) -> bool:
        return hasattr(self._loader, "state_dict") and hasattr(self._loader, "load_state_dict")

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"epoch": self.epoch, "own": self._own_states()}
        if self._iterator is not None:  # asked between two passes, a StatefulDataLoader would make an iterator
            state["pass"] = {
                "position": self._position,
                "beginning": self._beginning,
                "loader": self._loader.state_dict() if self._stateful else None,
            }
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raises ValueError where the loader is of another kind, or gives fewer batches than it did."""
        self.epoch = state_dict["epoch"]
        running = state_dict.get("pass")
        if running is not None:
            self._go_on(running)
        self._set_own_states(state_dict["own"])

    def _go_on(self, running: Mapping[str, Any]) -> None:
        if (running["loader"] is not None) != self._stateful:
            raise ValueError("the data loader was a StatefulDataLoader and is none now, or the other way round")
        position: int = running["position"]
        beginning = running["beginning"]
        RandomState().load_state_dict(beginning["global"])
        self._set_own_states(beginning["own"])
        if self._stateful:
            self._loader.load_state_dict(running["loader"])
        self._begin()
        if not self._stateful:
            for left_out in range(position):
                if next(self._iterator, self) is self:  # type: ignore[arg-type]
                    raise ValueError(f"the data loader gave {position} batches of this pass, and gives {left_out} now")
        self._position, self._beginning, self._restored = position, beginning, True
