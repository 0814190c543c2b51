"""Files of torch.distributed.checkpoint inside a checkpoint of ours: `dcp.load` reads them, and they cost one pass.

Each rank writes one file, hashed while it is written and made durable, and reads only files that it has proved to be
what was written. The metadata are a pickle by DCP's own rule; they are read back by naming what they may consist of.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Callable, Optional

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import LoadItemType, WriteItemType
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from sweeprun_protocol.manifest import ManifestFile
from sweeprun_volume.errors import VolumeError
from sweeprun_volume.operations import Volume

from .hashed_stream import HashedStream
from .ranks import PeerLostError, Ranks

METADATA = ".metadata"
MAX_METADATA_BYTES = 1 << 30


class ShardsError(Exception):
    """Shards could not be written or read on some rank; raised on all of them."""


Prove = Callable[[str], None]
"""Raises where the file of this name is not what was written."""


def save(
    tensors: Mapping[str, Any], volume: Volume, directory: str, algorithm: str, ranks: Ranks
) -> list[ManifestFile]:
    """Collective: returns the files that this rank wrote. What fails on one rank is raised on all of them."""
    writer = _Writer(volume, directory, algorithm, ranks.rank)
    _together(dcp_save, dict(tensors), ranks, storage_writer=writer)
    return writer.written


def load(tensors: dict[str, Any], volume: Volume, directory: str, ranks: Ranks, *, prove: Prove) -> None:
    """Collective: into the tensors that are given, however they are cut. What fails on one rank is raised on all."""
    _together(dcp_load, tensors, ranks, storage_reader=_Reader(volume, directory, prove))


def _together(call: Any, tensors: dict[str, Any], ranks: Ranks, **storage: Any) -> None:
    alone = not dist.is_initialized()
    with warnings.catch_warnings():
        if alone:
            warnings.filterwarnings("ignore", message=r"torch\.distributed is .*", category=UserWarning)
        try:
            call(tensors, process_group=ranks.group, no_dist=alone, **storage)
        except CheckpointException as error:  # which is no Exception
            raise ShardsError("; ".join(_told(rank, one[0]) for rank, one in error.failures.items())) from error
        except RuntimeError as error:  # what a rank runs into by itself is told as the above
            if ranks.world == 1:
                raise
            raise PeerLostError(f"a rank is gone, or silent for too long: {error}") from error


def _told(rank: int, error: BaseException) -> str:
    return f"rank {rank}: {error if isinstance(error, (OSError, VolumeError)) else repr(error)}"


class _Writer(StorageWriter):
    def __init__(self, volume: Volume, directory: str, algorithm: str, rank: int) -> None:
        self._volume, self._directory, self._algorithm, self._rank = volume, directory, algorithm, rank
        self.written: list[ManifestFile] = []

    def reset(self, checkpoint_id: Optional[Any] = None) -> None:
        pass

    def set_up_storage_writer(self, is_coordinator: bool, *_: Any, **__: Any) -> None:
        pass

    def prepare_local_plan(self, plan: Any) -> Any:
        return plan

    def prepare_global_plan(self, plans: list[Any]) -> list[Any]:
        return plans

    def write_data(self, plan: Any, planner: Any) -> Future[list[WriteResult]]:
        results: list[WriteResult] = []
        if plan.items:
            name = f"__{self._rank}_0.distcp"
            with self._stream(name) as stream:
                for item in plan.items:
                    offset = stream.tell()
                    data = planner.resolve_data(item)
                    if item.type == WriteItemType.BYTE_IO:
                        stream.write(data.getbuffer())
                    else:
                        torch.save(_alone(data), stream)  # type: ignore[arg-type]  # no more than write and flush
                    length = stream.tell() - offset
                    results.append(WriteResult(item.index, length, _StorageInfo(name, offset, length)))
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        metadata.storage_data = {one.index: one.storage_data for some in results for one in some}
        metadata.storage_meta = StorageMeta()
        with self._stream(METADATA) as stream:
            stream.write(pickle.dumps(metadata))

    def _stream(self, name: str) -> _NamedStream:
        return _NamedStream(self, name)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return checkpoint_id is None

    def storage_meta(self) -> Optional[StorageMeta]:
        return StorageMeta()


class _NamedStream:
    """A file of the checkpoint; at its end it is durable, and listed in `written`."""

    def __init__(self, writer: _Writer, name: str) -> None:
        self._writer, self._name = writer, name

    def __enter__(self) -> HashedStream:
        writer = self._writer
        path = f"{writer._directory}/{self._name}"
        self._file = writer._volume.create_file(path)
        self._stream = HashedStream(writer._volume, self._file.__enter__(), path, writer._algorithm)
        return self._stream.__enter__()

    def __exit__(self, *raised: Any) -> None:
        self._stream.__exit__(*raised)
        self._file.__exit__(*raised)
        if raised[0] is None:
            hasher = self._stream.hasher
            self._writer.written.append(ManifestFile(self._name, hasher.size, hasher.finish()))


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """On the CPU, and without the rest of a larger storage that it is a part of: torch.save writes whole storages."""
    tensor = tensor.detach().cpu()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


class _Reader(StorageReader):
    def __init__(self, volume: Volume, directory: str, prove: Prove) -> None:
        self._volume, self._directory, self._prove = volume, directory, prove
        self._places: Mapping[Any, Any] = {}

    def reset(self, checkpoint_id: Optional[Any] = None) -> None:
        pass

    def read_metadata(self) -> Metadata:
        self._prove(METADATA)
        data = self._volume.read(f"{self._directory}/{METADATA}", limit=MAX_METADATA_BYTES)
        if data is None:
            raise FileNotFoundError(f"{self._directory}/{METADATA} is not there")
        found = _Metadata(io.BytesIO(data)).load()
        if not isinstance(found, Metadata):
            raise pickle.UnpicklingError(f"{self._directory}/{METADATA} holds no metadata")
        return found

    def set_up_storage_reader(self, metadata: Metadata, *_: Any, **__: Any) -> None:
        self._places = metadata.storage_data

    def prepare_local_plan(self, plan: Any) -> Any:
        return plan

    def prepare_global_plan(self, plans: list[Any]) -> list[Any]:
        return plans

    def read_data(self, plan: Any, planner: Any) -> Future[None]:
        wanted: dict[str, list[Any]] = defaultdict(list)
        for item in plan.items:
            if item.type == LoadItemType.BYTE_IO:
                raise ValueError(f"{item.storage_index.fqn} is no tensor: reading it could run arbitrary code")
            wanted[self._places[item.storage_index].relative_path].append(item)
        for name, some in wanted.items():
            self._prove(name)
            with self._volume.open_file(f"{self._directory}/{name}") as (descriptor, _):
                for item in some:
                    self._read(descriptor, f"{self._directory}/{name}", item, planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _read(self, descriptor: int, path: str, item: Any, planner: Any) -> None:
        place = self._places[item.storage_index]
        data, done = bytearray(place.length), 0
        while done < place.length:
            count = self._volume.read_at(descriptor, memoryview(data)[done:], place.offset + done, path)
            if count == 0:
                raise EOFError(f"{place.relative_path} ends in {item.storage_index.fqn}")
            done += count
        tensor = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        for dimension, (offset, length) in enumerate(zip(item.storage_offsets, item.lengths)):
            tensor = tensor.narrow(dimension, offset, length)
        target = planner.resolve_tensor(item).detach()
        if target.size() != tensor.size():
            raise ValueError(f"{item.storage_index.fqn} has size {tuple(tensor.size())}, not {tuple(target.size())}")
        target.copy_(tensor)
        planner.commit_tensor(item, target)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return checkpoint_id is None


_MAY_BE: frozenset[tuple[str, str]] = frozenset(
    {
        ("torch", "Size"),
        ("torch.serialization", "_get_layout"),
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        *(
            ("torch.distributed.checkpoint.metadata", name)
            for name in (
                "BytesStorageMetadata",
                "ChunkStorageMetadata",
                "Metadata",
                "MetadataIndex",
                "StorageMeta",
                "TensorProperties",
                "TensorStorageMetadata",
                "_MEM_FORMAT_ENCODING",
            )
        ),
    }
)


class _Metadata(pickle.Unpickler):
    """Makes what DCP's metadata consist of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _MAY_BE or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a checkpoint's metadata")
