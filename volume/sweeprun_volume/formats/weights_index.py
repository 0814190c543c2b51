"""Weights in several files: the index says which tensor lies in which, and all of them have to agree."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Optional

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import check_relative
from sweeprun_protocol.reasons import RefusalReason
from sweeprun_volume.operations import Facts

from . import Context, Refused
from .foreign_json import Cursor, open_document
from .safetensors_header import MAX_TENSORS, SUFFIX, Header, Headers

INDEX_SUFFIX = ".index.json"
MAX_INDEX_BYTES = 100_000_000

_INDEX = re.compile(r".+(\.safetensors|\.bin)\.index\.json")
_PART = re.compile(r"(.*?)([0-9]{1,6})-of-([0-9]{1,6})([^/]*\.(?:safetensors|bin))")
_RANK_PART = re.compile(r"(?:.*/)?shard-[0-9]+-model-[0-9]+-of-[0-9]+\.safetensors")
"""Of torch.distributed.checkpoint's HuggingFaceStorageWriter with save_distributed. The last number counts the files of
one rank; how many ranks there were is written nowhere."""


@dataclass(frozen=True)
class _Index:
    name: str
    """Relative to the checkpoint."""
    weight_map: dict[str, str]
    """Tensor -> file, relative to the checkpoint; what was found in its file is taken out."""
    total_size: Optional[float]
    """Bytes of all tensors, where it says."""

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name[: -len(INDEX_SUFFIX)])[1]


def is_part(name: str) -> bool:
    """One of several files by its name."""
    match = _PART.fullmatch(name)
    return _RANK_PART.fullmatch(name) is not None or (match is not None and int(match.group(3)) > 1)


def without_part(name: str) -> str:
    """The name of a part without the numbers that tell which one it is."""
    match = _PART.fullmatch(name)
    return f"{match.group(1)}.{match.group(4)}" if match is not None else name


def check_weights(context: Context, place: str, files: Mapping[str, Facts]) -> None:
    """Every .safetensors file among `files` (relative to the checkpoint at `place`) by its header, and every index.

    Raises Refused: FILE_MISSING, FILE_EXTRA, SIZE_MISMATCH, TRUNCATED, STRUCTURE and others; OutOfTimeError,
    VolumeError.
    """
    indexes = [_read_index(context, place, name) for name in files if _INDEX.fullmatch(name)]
    named = {file: index for index in indexes for file in index.weight_map.values()}
    for index in indexes:
        _check_named(index, files)
        _check_unnamed(index, files, named)
    headers = Headers(context)
    tensor_bytes = dict.fromkeys(named, 0)
    for name in files:
        if name.endswith(SUFFIX):
            header = headers.read(posixpath.join(place, name), name)
            if name in named:
                _check_tensors(named[name], name, header)
                tensor_bytes[name] = header.tensor_bytes
    for index in indexes:
        if index.suffix == SUFFIX:
            _check_sums(index, sum(tensor_bytes[name] for name, owner in named.items() if owner is index))


def _read_index(context: Context, place: str, name: str) -> _Index:
    cursor = open_document(context, place, name, limit=MAX_INDEX_BYTES)
    weight_map: dict[str, str] = {}
    total_size: Optional[float] = None
    for key in cursor.members(1000):
        if key == "weight_map":
            weight_map = _read_weight_map(cursor, posixpath.dirname(name))
        elif key == "metadata":
            for field in cursor.members(1000):
                if field == "total_size":
                    total_size = cursor.number()
                else:
                    cursor.skip()
        else:
            cursor.skip()
    cursor.end()
    if not weight_map:
        raise Refused(RefusalReason.STRUCTURE, f"{name} names no tensor", entry=name)
    return _Index(name, weight_map, total_size)


def _read_weight_map(cursor: Cursor, directory: str) -> dict[str, str]:
    """`directory`: that of the index. One text for each file, however many tensors name it."""
    paths: dict[str, str] = {}
    weight_map: dict[str, str] = {}
    for tensor in cursor.members(MAX_TENSORS):
        file = cursor.string()
        if file not in paths:
            try:
                check_relative(file, what="a file of the index")
            except ValueError as error:
                cursor.refuse(f"{error}, not {ascii(file)[:80]}")
            paths[file] = posixpath.join(directory, file)
        weight_map[tensor] = paths[file]
    return weight_map


def _check_named(index: _Index, files: Mapping[str, Facts]) -> None:
    """What the index names is there, and of a set of n parts it names n."""
    sets: dict[tuple[str, int, str], set[int]] = {}
    for file in sorted(set(index.weight_map.values())):
        if not file.endswith(index.suffix):
            raise Refused(RefusalReason.STRUCTURE, f"{index.name} names {ascii(file)[:200]}", entry=index.name)
        if file not in files:
            raise Refused(RefusalReason.FILE_MISSING, f"{file}, which {index.name} names, is missing", entry=file)
        match = _PART.fullmatch(file)
        if match is not None:
            prefix, number, count, ending = match.groups()
            sets.setdefault((prefix, int(count), ending), set()).add(int(number))
    for (prefix, count, ending), numbers in sets.items():
        if numbers != set(range(1, count + 1)):
            missing = sorted(set(range(1, count + 1)) - numbers)
            text = f"{index.name} names {len(numbers)} of the {count} parts {prefix}*{ending}; not number {missing[:3]}"
            raise Refused(RefusalReason.FILE_MISSING, text, entry=index.name)


def _check_unnamed(index: _Index, files: Mapping[str, Facts], named: Mapping[str, _Index]) -> None:
    """No part beside it that no index names, and no single file that loaders take instead of the parts."""
    directory = posixpath.dirname(index.name)
    single = index.name[: -len(INDEX_SUFFIX)]
    for file in files:
        if posixpath.dirname(file) != directory or file in named or not file.endswith(index.suffix):
            continue
        if is_part(posixpath.basename(file)) or file == single:
            text = f"{file} lies beside {index.name}, which does not name it: left by another save"
            raise Refused(RefusalReason.FILE_EXTRA, text, entry=file)


def _check_tensors(index: _Index, file: str, header: Header) -> None:
    for tensor in header.names:
        if index.weight_map.pop(tensor, None) != file:
            text = f"{file} holds the tensor {ascii(tensor)[:80]}, {index.name} does not say so"
            raise Refused(RefusalReason.STRUCTURE, text, entry=file)


def _check_sums(index: _Index, tensor_bytes: int) -> None:
    """After all files were looked at."""
    for tensor, file in index.weight_map.items():
        text = f"{file} lacks the tensor {ascii(tensor)[:80]} that {index.name} says is there"
        raise Refused(RefusalReason.STRUCTURE, text, entry=file)
    # more is no damage: transformers counts a tensor that is part of a larger buffer with the buffer's bytes (measured)
    if index.total_size is not None and not index.total_size >= tensor_bytes:
        text = f"{index.name} tells of {index.total_size:.0f} bytes of tensors, the files hold {tensor_bytes}"
        raise Refused(RefusalReason.SIZE_MISMATCH, text, entry=index.name)


def parts_without_index(files: Sequence[str]) -> list[str]:
    """Parts in the checkpoint's own directory where no index lies: which others belong to them cannot be known."""
    if any("/" not in name and _INDEX.fullmatch(name) for name in files):
        return []
    return [name for name in files if "/" not in name and is_part(name)]
