"""What a checkpoint holds, as files: each object's state in one, written through a hash, read back without arbitrary
code."""

from __future__ import annotations

import io
import random
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, Protocol

import torch

from sweeprun_protocol.manifest import ManifestFile
from sweeprun_protocol.names import is_file_name
from sweeprun_volume.operations import Volume

from .hashed_stream import HashedStream

RNG = "rng"


class Stateful(Protocol):
    """A module, an optimizer, a scheduler, a scaler, a data loader: anything with torch's two methods.

    States are read back with `weights_only=True`: tensors, numbers, texts, lists, tuples and dictionaries.
    """

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


class RandomState:
    """The generators that training code uses without naming them: random, torch, CUDA and, where it was imported,
    NumPy."""

    def __init__(self) -> None:
        self._loaded: Optional[Mapping[str, Any]] = None

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state_all()
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            name, keys, position, has_gauss, cached = numpy.random.get_state()
            # as plain numbers: arrays would need NumPy's classes when they are read back
            state["numpy"] = [name, torch.tensor(keys.tolist()), position, has_gauss, cached]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        version, internal, gauss = state_dict["python"]
        random.setstate((version, tuple(internal), gauss))
        torch.set_rng_state(state_dict["torch"])
        if "cuda" in state_dict and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state_dict["cuda"])
        if "numpy" in state_dict:
            import numpy

            name, keys, position, has_gauss, cached = state_dict["numpy"]
            numpy.random.set_state((name, keys.tolist(), position, has_gauss, cached))
        self._loaded = state_dict

    def load_again(self) -> None:
        """From memory: the volume may fail by now, on one rank alone."""
        if self._loaded is not None:
            self.load_state_dict(self._loaded)


@dataclass(frozen=True)
class Item:
    """One file of a checkpoint."""

    file: str
    state: Stateful
    own: bool
    """Written by this rank; shared ones are written by rank 0 alone."""


def items(shared: Mapping[str, Stateful], per_rank: Mapping[str, Stateful], *, rank: int) -> list[Item]:
    """In the order in which they are restored: the random state comes last, since restoring the others may use it.

    Raises:
        ValueError: a name is no plain file name, or is taken twice.
    """
    taken = [*shared, *per_rank]
    for name in taken:
        if not is_file_name(f"{name}.pt") or "-rank-" in name or name == RNG or taken.count(name) > 1:
            raise ValueError(f"{name!r} cannot name a part of a checkpoint: use a plain, unique name other than rng")
    found = [Item(f"{name}.pt", state, rank == 0) for name, state in shared.items()]
    mine = {**per_rank, RNG: RandomState()}
    return found + [Item(f"{name}-rank-{rank}.pt", state, True) for name, state in mine.items()]


def write_item(volume: Volume, directory: str, item: Item, *, algorithm: str) -> ManifestFile:
    """Raises VolumeError; TypeError where the state could be written and never read back."""
    state = item.state.state_dict()
    _require_readable(item.file, state)
    path = f"{directory}/{item.file}"
    with volume.create_file(path) as descriptor, HashedStream(volume, descriptor, path, algorithm) as stream:
        torch.save(state, stream)  # type: ignore[arg-type]  # torch needs no more than write and flush
    return ManifestFile(item.file, stream.hasher.size, stream.hasher.finish())


def _require_readable(file: str, state: Any) -> None:
    """A NumPy scalar or an enumeration somewhere in it, and no attempt could ever go on from this checkpoint."""
    stream = io.BytesIO()
    torch.save(_without_tensors(state), stream)
    stream.seek(0)
    try:
        torch.load(stream, weights_only=True)
    except Exception as error:
        raise TypeError(f"{file} could not be read back with weights_only=True: {error}") from error


def _without_tensors(value: Any) -> Any:
    """What is left is small. Other containers stay as they are: whether they can be read back is the question."""
    kind = type(value)
    if kind in (torch.Tensor, torch.nn.Parameter):
        return None
    if kind in (dict, OrderedDict):
        return {key: _without_tensors(part) for key, part in value.items()}
    if kind in (list, tuple):
        return kind(_without_tensors(part) for part in value)
    return value


def read_item(volume: Volume, directory: str, item: Item) -> Any:
    """The state of a file that was verified just before. Raises what torch.load raises, FileNotFoundError."""
    with volume.open_file(f"{directory}/{item.file}") as (descriptor, _), open(descriptor, "rb", closefd=False) as file:
        return torch.load(file, map_location="cpu", weights_only=True)
