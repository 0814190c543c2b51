"""What the metadata of a save says, packed: of a hundred thousand items a few megabytes."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from operator import le, lt
from typing import NamedTuple, Optional, Union, overload

from sweeprun_protocol.frozen import dataclass

MAX_SHOWN = 120
"""Characters of a key in a message."""

Shape = tuple[int, ...]
Chunk = tuple[Shape, Shape]
"""Offsets and sizes."""


@dataclass(frozen=True)
class Tensor:
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


UNKNOWN, TENSOR, OTHER = range(3)


class Keys:
    """Of a save, numbered as they are seen."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.kinds = bytearray()
        """By number: UNKNOWN, TENSOR or OTHER."""


class Intervals(Sequence[Interval]):
    """Of one file; each is made when it is asked for."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._key = array("I")
        self._offset = array("Q")
        self._length = array("Q")
        self._transformed = bytearray()

    def add(self, number: int, offset: int, length: int, *, transformed: bool) -> None:
        """Of the key that has this number."""
        self._key.append(number)
        self._offset.append(offset)
        self._length.append(length)
        self._transformed.append(transformed)

    def extend(self, others: Sequence[Interval]) -> None:
        """By intervals of another save in the same file."""
        keys, self._keys = self._keys, Keys()
        self._keys.names, self._keys.kinds = list(keys.names), bytearray(keys.kinds)
        for other in others:
            self.add(len(self._keys.names), other.offset, other.length, transformed=other.transformed)
            self._keys.names.append(other.key)
            self._keys.kinds.append(TENSOR if other.tensor else OTHER)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Length of each, and whether it is transformed."""
        return zip(self._length, self._transformed)

    def sort(self) -> None:
        """By their offsets."""
        if all(map(le, self._offset, islice(self._offset, 1, None))):
            return
        order = sorted(range(len(self)), key=self._offset.__getitem__)
        self._key = array("I", map(self._key.__getitem__, order))
        self._length = array("Q", map(self._length.__getitem__, order))
        self._transformed = bytearray(map(self._transformed.__getitem__, order))
        self._offset = array("Q", map(self._offset.__getitem__, order))

    def __len__(self) -> int:
        return len(self._offset)

    @overload
    def __getitem__(self, index: int) -> Interval: ...

    @overload
    def __getitem__(self, index: slice) -> list[Interval]: ...

    def __getitem__(self, index: Union[int, slice]) -> Union[Interval, list[Interval]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        key = self._key[index]
        return Interval(
            self._keys.names[key],
            self._offset[index],
            self._length[index],
            self._keys.kinds[key] == TENSOR,
            bool(self._transformed[index]),
        )


def code_of(key: int, shape: int) -> int:
    """Of a key and the offsets of a chunk, by their numbers."""
    return key << 32 | shape


class Due:
    """What was announced and is to be found in some file: chunks, by code_of, and how long they are at least."""

    def __init__(self) -> None:
        self._codes = array("Q")
        self._least = array("Q")
        self._found = bytearray()

    def add(self, key: int, offsets: int, least: int) -> None:
        self._codes.append(code_of(key, offsets))
        self._least.append(least)

    def sort(self) -> None:
        """Once all are there; of several with one code the last counts."""
        if not all(map(lt, self._codes, islice(self._codes, 1, None))):
            order = sorted(range(len(self._codes)), key=self._codes.__getitem__)
            last = [at for at, behind in zip_longest(order, order[1:]) if self._differ(at, behind)]
            self._least = array("Q", map(self._least.__getitem__, last))
            self._codes = array("Q", map(self._codes.__getitem__, last))
        self._found = bytearray(len(self._codes))

    def _differ(self, one: int, other: Optional[int]) -> bool:
        return other is None or self._codes[one] != self._codes[other]

    def pop(self, code: int) -> Optional[int]:
        """Fewest bytes of it; None where there is no such, or no more."""
        at = bisect_left(self._codes, code)
        if at == len(self._codes) or self._codes[at] != code or self._found[at]:
            return None
        self._found[at] = 1
        return self._least[at]

    def left(self) -> Optional[int]:
        """The key of one that has bytes and was not found."""
        for code, least, found in zip(self._codes, self._least, self._found):
            if least and not found:
                return code >> 32
        return None


class Saved:
    def __init__(self) -> None:
        self.tensors: list[str] = []
        """Keys, by the numbers of the tensors."""
        self.has_others = False
        """Whether there are keys of what is no tensor."""
        self.files: dict[str, Intervals] = {}
        """By the names that the metadata gives them, unchecked."""
        self.shapes: list[Shape] = []
        """Each once; what follows holds their numbers here."""
        self._shape = array("I")
        self._first = array("I")
        """By tensor: number of its first chunk."""
        self._offsets = array("I")
        self._sizes = array("I")

    @property
    def items(self) -> int:
        return sum(map(len, self.files.values()))

    def add_tensor(self, key: str, shape: int) -> None:
        self.tensors.append(key)
        self._shape.append(shape)
        self._first.append(len(self._sizes))

    def add_chunk(self, offsets: int, sizes: int) -> None:
        """Of the tensor that was added last."""
        self._offsets.append(offsets)
        self._sizes.append(sizes)

    def tensor(self, number: int) -> Tensor:
        first = self._first[number]
        behind = self._first[number + 1] if number + 1 < len(self._first) else len(self._sizes)
        chunks = [(self.shapes[self._offsets[at]], self.shapes[self._sizes[at]]) for at in range(first, behind)]
        return Tensor(self.shapes[self._shape[number]], chunks)


def shown(key: str) -> str:
    """A key as a message may hold it."""
    text = ascii(key)[1:-1]
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
