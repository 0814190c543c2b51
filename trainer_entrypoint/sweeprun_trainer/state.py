"""What a checkpoint holds, as files: each object's state in one, written through a hash, read back without arbitrary
code."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sweeprun_protocol.manifest import ManifestFile
from sweeprun_protocol.names import is_file_name
from sweeprun_volume.operations import Volume

from .hashed_stream import HashedStream
from .stateful import Buffers, RandomState, Stateful, as_stateful

RNG = "rng"


@dataclass(frozen=True)
class Item:
    """One file of a checkpoint."""

    file: str
    state: Stateful
    own: bool
    """Written by this rank; shared ones are written by rank 0 alone."""
    shared: bool = False
    """The same for every rank, however many there are."""


def items(shared: Mapping[str, Any], per_rank: Mapping[str, Any], *, rank: int) -> list[Item]:
    """In the order in which they are restored: the random state comes last, since restoring the others may use it.

    Buffers of shared modules differ from rank to rank: rank 0's are in the shared file, each other rank has its own.

    Raises:
        TypeError: an object has no state that could be put back.
    """
    found = [Item(f"{name}.pt", as_stateful(name, state), rank == 0, shared=True) for name, state in shared.items()]
    modules = {name: module for name, module in shared.items() if isinstance(module, torch.nn.Module)}
    buffers = {name: Buffers(module) for name, module in modules.items()} if rank else {}
    mine = {**buffers, **per_rank, RNG: RandomState()}
    return found + [Item(rank_file(name, rank), as_stateful(name, state), True) for name, state in mine.items()]


def rank_file(name: str, rank: int) -> str:
    return f"{name}-rank-{rank}.pt"


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError: a name is no plain file name, or is taken twice."""
    for name in names:
        if not is_file_name(f"{name}.pt") or "-rank-" in name or name == RNG or names.count(name) > 1:
            raise ValueError(f"{name!r} cannot name a part of a checkpoint: use a plain, unique name other than rng")


def write_state(volume: Volume, directory: str, file: str, state: Any, *, algorithm: str) -> ManifestFile:
    """Raises VolumeError; TypeError where the state could be written and never read back."""
    _require_readable(file, state)
    path = f"{directory}/{file}"
    with volume.create_file(path) as descriptor, HashedStream(volume, descriptor, path, algorithm) as stream:
        torch.save(state, stream)  # type: ignore[arg-type]  # torch needs no more than write and flush
    return ManifestFile(file, stream.hasher.size, stream.hasher.finish())


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


def read_state(volume: Volume, directory: str, file: str) -> Any:
    """Of a file that was verified just before. Raises what torch.load raises, FileNotFoundError."""
    with volume.open_file(f"{directory}/{file}") as (descriptor, _), open(descriptor, "rb", closefd=False) as opened:
        return torch.load(opened, map_location="cpu", weights_only=True)
