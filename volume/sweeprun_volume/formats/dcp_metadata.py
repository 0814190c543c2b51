"""What the metadata of torch.distributed.checkpoint says of a save, read from its tokens. Pure.

torch.distributed.checkpoint.metadata.Metadata: `state_dict_metadata` tells of each key whether it is a tensor, with
its shape and the chunks that were saved, or something else; `storage_data` tells where each chunk lies: file, offset,
length. Classes are known by their names alone: their modules moved between versions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import field
from itertools import product
from typing import Callable, NamedTuple, NoReturn, Optional

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.reasons import RefusalReason

from . import Refused
from .pickle_tokens import (
    DICT,
    FIRST,
    LIST,
    EndsEarlyError,
    Global,
    Limits,
    PickleError,
    TooLargeError,
    Value,
    tokenise,
    uncollected,
)

MAX_ITEMS = 2_000_000
MAX_DIMENSIONS = 64
MAX_NUMBER = 1 << 62
"""Of a length, an offset or an extent of a tensor."""
MAX_CORNERS = 1 << 24
"""Of all chunks of a checkpoint together, in the dimensions in which its tensors are cut."""
_BEAT = 4096
"""Items between two looks at the time."""
MAX_SHOWN = 120
"""Characters of a key in a message."""

_ITEM_BYTES = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32", "complex32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"), 1),
    "complex128": 16,
}
"""Others count as 0: their sizes are not compared."""

_TENSOR = ["properties", "size", "chunks"]
_CHUNK = ["offsets", "sizes"]
_INDEX = ["fqn", "index", "offset"]
_PLACE = ["relative_path", "offset", "length"]

Shape = tuple[int, ...]
Chunk = tuple[Shape, Shape]
"""Offsets and sizes."""


@dataclass(frozen=True)
class Tensor:
    dtype: str
    shape: Shape
    chunks: list[Chunk]


class Interval(NamedTuple):
    """Where an item lies in a file."""

    key: str
    offset: int
    length: int
    tensor: bool
    transformed: bool
    """By an extension of the writer, such as compression: no archive then."""


@dataclass(frozen=True)
class Saved:
    tensors: dict[str, Tensor] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    """Keys of what is no tensor."""
    files: dict[str, list[Interval]] = field(default_factory=dict)
    """By the names that the metadata gives them, unchecked."""

    @property
    def items(self) -> int:
        return sum(map(len, self.files.values()))


def read_metadata(data: bytes, name: str, limits: Limits) -> Saved:
    """`name` is that of the file, for messages.

    Raises Refused: TRUNCATED, STRUCTURE, LIMIT_EXCEEDED, SIZE_MISMATCH (a tensor is larger than what is stored of it),
    and what `limits.beat` raises.
    """
    try:
        value = tokenise(data, limits=limits)
    except EndsEarlyError as error:
        raise Refused(RefusalReason.TRUNCATED, f"{name}: {error}", entry=name, offset=error.offset) from None
    except TooLargeError as error:
        raise Refused(RefusalReason.LIMIT_EXCEEDED, f"{name}: {error}", entry=name, offset=error.offset) from None
    except PickleError as error:
        text = f"{name} is no pickle of torch.distributed.checkpoint: {error}"
        raise Refused(RefusalReason.STRUCTURE, text, entry=name, offset=error.offset) from None
    with uncollected():
        return _Reader(name, limits.beat).read(value)


def shown(key: str) -> str:
    """A key as a message may hold it."""
    text = ascii(key)[1:-1]
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


class _Reader:
    def __init__(self, name: str, beat: Callable[[], None]) -> None:
        self._name = name
        self._beat = beat
        self._saved = Saved()
        self._due: dict[tuple[str, Optional[Shape]], int] = {}
        """Fewest bytes of each item of which nothing is known yet where it lies."""
        self._items = 0

    def read(self, value: Value) -> Saved:
        fields = self._fields(value, "Metadata")
        for key, item in self._pairs(fields.get("state_dict_metadata"), "state_dict_metadata"):
            if type(key) is not str or key in self._saved.tensors or key in self._saved.others:
                self._fail("a key that is no text, or there twice")
            self._take_item(key, item)
        for index, info in self._pairs(fields.get("storage_data"), "storage_data"):
            self._place(index, info)
        for (key, _), least in self._due.items():
            if least:
                self._fail(f"{shown(key)} is in no file")
        return self._saved

    def _take_item(self, key: str, item: Value) -> None:
        self._count()
        if _class_name(item) == "BytesStorageMetadata":
            self._saved.others.add(key)
            self._due[key, None] = 1
            return
        properties, size, each = self._attributes(item, "TensorStorageMetadata", _TENSOR)
        dtype = self._dtype(properties)
        shape = self._shape(size)
        volume = math.prod(shape)
        item_bytes = _ITEM_BYTES.get(dtype, 0)
        chunks: list[Chunk] = []
        if type(each) is not list or each[0] is not LIST:
            self._fail(f"{shown(key)} has no list of chunks")
        for value in each[FIRST:]:
            self._count()
            at, extent = self._attributes(value, "ChunkStorageMetadata", _CHUNK)
            offsets, sizes = self._shape(at), self._shape(extent)
            if len(offsets) != len(shape) or len(sizes) != len(shape):
                self._fail(f"{shown(key)}: a chunk has other dimensions than the tensor")
            count = math.prod(sizes)
            if count or not volume:
                chunks.append((offsets, sizes))
            # ranks without a part of a tensor save empty ones, which may share a place: one of them is kept
            self._due[key, offsets] = count * item_bytes or min(count, 1)
        self._saved.tensors[key] = Tensor(dtype, shape, chunks)

    def _place(self, index: Value, info: Value) -> None:
        key, _, offsets = self._attributes(index, "MetadataIndex", _INDEX)
        if type(key) is not str:
            self._fail("a key of storage_data is no text")
        path, offset, length = self._attributes(info, "_StorageInfo", _PLACE)
        if type(path) is not str:
            self._fail(f"{shown(key)} lies in a file whose name is no text")
        offset, length = self._number(offset, key), self._number(length, key)
        least = self._due.pop((key, None if offsets is None else self._shape(offsets)), None)
        if least is None:
            self._fail(f"{shown(key)}: what storage_data names is not in state_dict_metadata, or there twice")
        transformed = len(info[2]) > FIRST + 2 * len(_PLACE) and self._is_transformed(info)
        if length < least and not transformed:
            text = f"{shown(key)} needs {least} bytes, {length} are stored at byte {offset} of {shown(path)}"
            raise Refused(RefusalReason.SIZE_MISMATCH, text, entry=shown(path), offset=offset)
        interval = Interval(key, offset, length, key in self._saved.tensors, transformed)
        self._saved.files.setdefault(path, []).append(interval)

    def _count(self) -> None:
        self._items += 1
        if not self._items % _BEAT:
            self._beat()
        if self._items > MAX_ITEMS:
            text = f"{self._name} tells of more than {MAX_ITEMS} items"
            raise Refused(RefusalReason.LIMIT_EXCEEDED, text, entry=self._name)

    def _dtype(self, properties: Value) -> str:
        """Name of the type, from the state of TensorProperties: a tuple that begins with it."""
        if _class_name(properties) != "TensorProperties" or type(properties[2]) is not tuple or not properties[2]:
            self._fail("a tensor without properties")
        dtype = properties[2][0]
        if type(dtype) is not Global:
            self._fail("a tensor without type")
        return dtype.name

    def _shape(self, value: Value) -> Shape:
        """Of a torch.Size."""
        if type(value) is not list or type(value[0]) is not Global or value[0].name != "Size":
            self._fail("a shape is no torch.Size")
        arguments = value[1]
        shape = arguments[0] if type(arguments) is tuple and len(arguments) == 1 else None
        if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS:
            self._fail(f"a shape is no tuple of at most {MAX_DIMENSIONS} numbers")
        for extent in shape:
            if type(extent) is not int or not 0 <= extent <= MAX_NUMBER:
                self._fail("a shape holds what is no number, or an absurd one")
        return shape

    def _is_transformed(self, info: Value) -> bool:
        transforms = self._fields(info, "_StorageInfo").get("transform_descriptors")
        return (type(transforms) is list and len(transforms) > FIRST) or (
            type(transforms) is tuple and transforms != ()
        )

    def _number(self, value: Value, key: str) -> int:
        if type(value) is not int or not 0 <= value <= MAX_NUMBER:
            self._fail(f"{shown(key)}: an offset or a length is no number, or an absurd one")
        return value

    def _attributes(self, value: Value, name: str, names: list[str]) -> list[Value]:
        """Of an object of the class `name`; None for those that it has not."""
        if type(value) is list and type(value[0]) is Global and value[0].name == name:
            state = value[2]
            # as torch writes them: in this order. Nothing deep is compared, since the names are texts
            if type(state) is list and state[0] is DICT and state[FIRST::2] == names:
                return state[FIRST + 1 :: 2]
        fields = self._fields(value, name)
        return [fields.get(each) for each in names]

    def _fields(self, value: Value, name: str) -> dict[str, Value]:
        """Attributes of an object of the class `name`."""
        if _class_name(value) != name:
            self._fail(f"something else in the place of {name}")
        state = value[2]
        if type(state) is not list or state[0] is not DICT:
            self._fail(f"{name} without its attributes")
        keys = state[FIRST::2]
        for key in keys:
            if type(key) is not str:
                self._fail(f"{name} with an attribute whose name is no text")
        return dict(zip(keys, state[FIRST + 1 :: 2]))

    def _pairs(self, value: Value, name: str) -> Iterator[tuple[Value, Value]]:
        if type(value) is not list or value[0] is not DICT:
            self._fail(f"{name} is no dict")
        return zip(value[FIRST::2], value[FIRST + 1 :: 2])

    def _fail(self, text: str) -> NoReturn:
        raise Refused(RefusalReason.STRUCTURE, f"{self._name}: {text}", entry=self._name)


def _class_name(value: Value) -> Optional[str]:
    if type(value) is list and type(value[0]) is Global:
        name: str = value[0].name
        return name
    return None


@dataclass()
class Corners:
    """How many corners of chunks may still be looked at."""

    left: int = MAX_CORNERS

    def tiles(self, shape: Shape, chunks: list[Chunk]) -> bool:
        """Whether the chunks cover the shape exactly: no hole, no overlap, nothing outside.

        The alternating sum of the corners of a box determines it; where those of all chunks add up to those of the
        whole, so do the chunks. Linear in their number. Raises Refused: LIMIT_EXCEEDED.
        """
        if len(chunks) == 1 and chunks[0][1] == shape and not any(chunks[0][0]):
            return True
        solid = [chunk for chunk in chunks if 0 not in chunk[1]]
        if 0 in shape:
            return not solid
        if len(solid) == 1:
            return solid[0][1] == shape and not any(solid[0][0])
        cut = [axis for axis, extent in enumerate(shape) if any(sizes[axis] != extent for _, sizes in solid)]
        whole = [axis for axis in range(len(shape)) if axis not in cut]
        if any(offsets[axis] for offsets, _ in solid for axis in whole) or not cut:
            return False
        self.left -= (len(solid) + 1) << len(cut)
        if self.left < 0:
            text = f"{len(solid)} chunks that are cut in {len(cut)} dimensions: more than any save of torch has"
            raise Refused(RefusalReason.LIMIT_EXCEEDED, text)
        if len(cut) == 1:
            return _follow_each_other(shape[cut[0]], [(offsets[cut[0]], sizes[cut[0]]) for offsets, sizes in solid])
        sums: dict[Shape, int] = {}
        _add_corners(sums, cut, ((0,) * len(shape), shape), -1)
        for chunk in solid:
            _add_corners(sums, cut, chunk, 1)
        return not any(sums.values())


def _follow_each_other(extent: int, pieces: list[tuple[int, int]]) -> bool:
    end = 0
    for offset, size in sorted(pieces):
        if offset != end:
            return False
        end += size
    return end == extent


def _add_corners(sums: dict[Shape, int], axes: list[int], chunk: Chunk, sign: int) -> None:
    offsets, sizes = chunk
    sides = [((offsets[axis], 1), (offsets[axis] + sizes[axis], -1)) for axis in axes]
    for corner in product(*sides):
        place = tuple(at for at, _ in corner)
        sums[place] = sums.get(place, 0) + sign * math.prod(each for _, each in corner)
