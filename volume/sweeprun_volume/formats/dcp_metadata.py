"""What the metadata of torch.distributed.checkpoint says of a save, read from its tokens. Pure.

torch.distributed.checkpoint.metadata.Metadata: `state_dict_metadata` tells of each key whether it is a tensor, with
its shape and the chunks that were saved, or something else; `storage_data` tells where each chunk lies: file, offset,
length. Classes are known by their names alone: their modules moved between versions.
"""

from __future__ import annotations

import math
from array import array
from itertools import islice
from typing import Callable, NoReturn, Optional

from sweeprun_protocol.reasons import RefusalReason

from . import Refused
from .dcp_saved import OTHER, TENSOR, UNKNOWN, Due, Intervals, Keys, Saved, Shape, code_of, shown
from .pickle_machine import tokenise_in_portions
from .pickle_memo import Source
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
)

MAX_ITEMS = 2_000_000
MAX_DIMENSIONS = 64
MAX_NUMBER = 1 << 62
"""Of a length, an offset or an extent of a tensor."""
_BEAT = 4096
"""Items between two looks at the time."""
_ITEM_BYTES = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32", "complex32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"), 1),
    "complex128": 16,
}
"""Others count as 0: their sizes are not compared."""

_TENSOR_FIELDS = ["properties", "size", "chunks"]
_CHUNK = ["offsets", "sizes"]
_INDEX = ["fqn", "index", "offset"]
_PLACE = ["relative_path", "offset", "length"]


def read_metadata(source: Source, name: str, limits: Limits) -> Saved:
    """`name` is that of the file, for messages.

    Raises Refused: TRUNCATED, STRUCTURE, LIMIT_EXCEEDED, SIZE_MISMATCH (a tensor is larger than what is stored of it),
    and what `source` and `limits.beat` raise.
    """
    reader = _Reader(name, limits.beat)
    try:
        value = tokenise_in_portions(source, reader.take, limits=limits)
    except EndsEarlyError as error:
        raise Refused(RefusalReason.TRUNCATED, f"{name}: {error}", entry=name, offset=error.offset) from None
    except TooLargeError as error:
        raise Refused(RefusalReason.LIMIT_EXCEEDED, f"{name}: {error}", entry=name, offset=error.offset) from None
    except PickleError as error:
        text = f"{name} is no pickle of torch.distributed.checkpoint: {error}"
        raise Refused(RefusalReason.STRUCTURE, text, entry=name, offset=error.offset) from None
    return reader.read(value)


class _Reader:
    """Takes the items of the metadata as they come, in any order."""

    def __init__(self, name: str, beat: Callable[[], None]) -> None:
        self._name = name
        self._beat = beat
        self._saved = Saved()
        self._keys = Keys()
        self._numbers: dict[str, int] = {}
        self._shapes: dict[Optional[Shape], int] = {None: 0}
        self._saved.shapes.append(())
        self._arguments: list[tuple[Shape, ...]] = [()]
        self._due = Due()
        self._places: dict[str, array[int]] = {}
        """By file: of each interval, in their order, what is due there."""
        self._taken: dict[str, Value] = {}
        """The dicts whose items came already, by their names."""
        self._items = self._placed = 0

    def take(self, name: str, holder: Value, items: list[Value]) -> None:
        """Of what is called so in the metadata. Raises Refused."""
        into = {"state_dict_metadata": self._take_item, "storage_data": self._place}.get(name)
        if into is None:
            return
        if self._taken.setdefault(name, holder) is not holder:
            self._fail(f"{name} is there twice")
        for key, value in zip(items[::2], items[1::2]):
            into(key, value)

    def read(self, value: Value) -> Saved:
        """`value` is the metadata, of which the items were taken."""
        fields = self._fields(value, "Metadata")
        for name in ("state_dict_metadata", "storage_data"):
            holder = fields.get(name)
            if type(holder) is not list or holder[0] is not DICT:
                self._fail(f"{name} is no dict")
            self.take(name, holder, holder[FIRST:])
        self._compare()
        return self._saved

    def _take_item(self, key: Value, item: Value) -> None:
        if type(key) is not str:
            self._fail("a key that is no text, or there twice")
        self._count()
        number = self._number_of(key)
        if self._keys.kinds[number] != UNKNOWN:
            self._fail("a key that is no text, or there twice")
        if _class_name(item) == "BytesStorageMetadata":
            self._keys.kinds[number] = OTHER
            self._saved.has_others = True
            self._due.add(number, 0, 1)
            return
        self._keys.kinds[number] = TENSOR
        properties, size, each = self._attributes(item, "TensorStorageMetadata", _TENSOR_FIELDS)
        item_bytes = _ITEM_BYTES.get(self._dtype(properties), 0)
        whole = self._shape(size)
        shape = self._saved.shapes[whole]
        volume = math.prod(shape)
        self._saved.add_tensor(key, whole)
        if type(each) is not list or each[0] is not LIST:
            self._fail(f"{shown(key)} has no list of chunks")
        for value in islice(each, FIRST, None):
            self._count()
            at, extent = self._attributes(value, "ChunkStorageMetadata", _CHUNK)
            offsets, sizes = self._shape(at), self._shape(extent)
            if len(self._saved.shapes[offsets]) != len(shape) or len(self._saved.shapes[sizes]) != len(shape):
                self._fail(f"{shown(key)}: a chunk has other dimensions than the tensor")
            count = math.prod(self._saved.shapes[sizes])
            if count or not volume:
                self._saved.add_chunk(offsets, sizes)
            # ranks without a part of a tensor save empty ones, which may share a place: one of them is kept
            self._due.add(number, offsets, min(count * item_bytes or min(count, 1), 2 * MAX_NUMBER))

    def _place(self, index: Value, info: Value) -> None:
        key, _, offsets = self._attributes(index, "MetadataIndex", _INDEX)
        if type(key) is not str:
            self._fail("a key of storage_data is no text")
        path, offset, length = self._attributes(info, "_StorageInfo", _PLACE)
        if type(path) is not str:
            self._fail(f"{shown(key)} lies in a file whose name is no text")
        offset, length = self._number(offset, key), self._number(length, key)
        self._count_place()
        transformed = len(info[2]) > FIRST + 2 * len(_PLACE) and self._is_transformed(info)
        number = self._number_of(key)
        if path not in self._places:
            self._places[path] = array("Q")
            self._saved.files[path] = Intervals(self._keys)
        self._places[path].append(code_of(number, 0 if offsets is None else self._shape(offsets)))
        self._saved.files[path].add(number, offset, length, transformed=transformed)

    def _compare(self) -> None:
        """What is stored is what was announced, each once, and at least as long."""
        self._due.sort()
        for path, places in self._places.items():
            intervals = self._saved.files[path]
            for number, (place, (length, transformed)) in enumerate(zip(places, intervals.sizes())):
                least = self._due.pop(place)
                if least is None:
                    what = "what storage_data names is not in state_dict_metadata, or there twice"
                    self._fail(f"{shown(intervals[number].key)}: {what}")
                if length < least and not transformed:
                    key, offset = intervals[number][:2]
                    text = f"{shown(key)} needs {least} bytes, {length} are stored at byte {offset} of {shown(path)}"
                    raise Refused(RefusalReason.SIZE_MISMATCH, text, entry=shown(path), offset=offset)
        left = self._due.left()
        if left is not None:
            self._fail(f"{shown(self._keys.names[left])} is in no file")

    def _number_of(self, key: str) -> int:
        number = self._numbers.setdefault(key, len(self._numbers))
        if number == len(self._keys.names):
            self._keys.names.append(key)
            self._keys.kinds.append(UNKNOWN)
        return number

    def _count_place(self) -> None:
        self._placed += 1
        if not self._placed % _BEAT:
            self._beat()
        if self._placed > MAX_ITEMS:
            self._exceeds()

    def _count(self) -> None:
        self._items += 1
        if not self._items % _BEAT:
            self._beat()
        if self._items > MAX_ITEMS:
            self._exceeds()

    def _exceeds(self) -> NoReturn:
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

    def _shape(self, value: Value) -> int:
        """Number of the shape that a torch.Size is of."""
        if type(value) is not list or type(value[0]) is not Global or value[0].name != "Size":
            self._fail("a shape is no torch.Size")
        arguments = value[1]
        shape = arguments[0] if type(arguments) is tuple and len(arguments) == 1 else None
        if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS:
            self._fail(f"a shape is no tuple of at most {MAX_DIMENSIONS} numbers")
        for extent in shape:
            if type(extent) is not int or not 0 <= extent <= MAX_NUMBER:
                self._fail("a shape holds what is no number, or an absurd one")
        number = self._shapes.setdefault(shape, len(self._shapes))
        if number == len(self._arguments):
            self._saved.shapes.append(shape)
            self._arguments.append(arguments)
        value[1] = self._arguments[number]  # the pickle may keep it for long, and has few shapes in many copies
        return number

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

    def _fail(self, text: str) -> NoReturn:
        raise Refused(RefusalReason.STRUCTURE, f"{self._name}: {text}", entry=self._name)


def _class_name(value: Value) -> Optional[str]:
    if type(value) is list and type(value[0]) is Global:
        name: str = value[0].name
        return name
    return None
