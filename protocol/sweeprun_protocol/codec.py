"""JSON as both sides write and read it: canonical when written, bounded and checked when read.

Everything that is read here may come from a tenant's volume or pod, so a reader never trusts a size, a type
or a depth. Unknown fields are ignored, so that an older reader survives a newer writer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NoReturn, Optional, TypeVar

T = TypeVar("T")

MAX_RECORD_BYTES = 1 << 20
"""Upper bound of any record but a manifest, bytes."""

MAX_DEPTH = 16
"""Deepest nesting accepted in a record."""

MAX_INTEGER = (1 << 53) - 1
"""Largest integer that every JSON reader keeps exactly."""


class RecordError(ValueError):
    """A record that cannot be used; says where it was read and what is wrong with it."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


def dump(value: Mapping[str, Any]) -> bytes:
    """Encode canonically: the same value gives the same bytes, so that digests of records are stable."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def parse(data: bytes, *, where: str, limit: int = MAX_RECORD_BYTES) -> dict[str, Any]:
    """Decode one JSON object.

    Raises:
        RecordError: too large, not UTF-8, not JSON, not an object, nested too deeply, or not a finite number.
    """
    if len(data) > limit:
        raise RecordError(where, f"{len(data)} bytes, more than the {limit} allowed")
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise RecordError(where, "nested too deeply") from None
    except ValueError as error:
        raise RecordError(where, f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RecordError(where, "not a JSON object")
    if _depth(value) > MAX_DEPTH:
        raise RecordError(where, f"nested deeper than {MAX_DEPTH} levels")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _depth(value: Any) -> int:
    deepest = 0
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        deepest = max(deepest, depth)
        if depth > MAX_DEPTH:
            break
        if isinstance(item, dict):
            pending.extend((child, depth + 1) for child in item.values())
        elif isinstance(item, list):
            pending.extend((child, depth + 1) for child in item)
    return deepest


class Fields:
    """Checked access to the fields of one decoded object; every refusal names the field."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise RecordError(where, "not an object")
        self._value: Mapping[str, Any] = value
        self._where = where

    def fail(self, name: str, what: str) -> NoReturn:
        raise RecordError(self._where, f"field {name!r} {what}")

    def _get(self, name: str) -> Any:
        if name not in self._value:
            self.fail(name, "is missing")
        return self._value[name]

    def has(self, name: str) -> bool:
        return self._value.get(name) is not None

    def text(self, name: str, *, most: int = 1024) -> str:
        value = self._get(name)
        if not isinstance(value, str):
            self.fail(name, "is not a string")
        if len(value) > most:
            self.fail(name, f"is longer than {most} characters")
        if "\x00" in value:
            self.fail(name, "holds a NUL character")
        return value

    def integer(self, name: str, *, least: int = 0, most: int = MAX_INTEGER) -> int:
        value = self._get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail(name, "is not an integer")
        if not least <= value <= most:
            self.fail(name, f"is not between {least} and {most}")
        return value

    def number(self, name: str, *, least: float = 0.0, most: float = 1e15) -> float:
        value = self._get(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self.fail(name, "is not a number")
        if not least <= value <= most:
            self.fail(name, f"is not between {least} and {most}")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self._get(name)
        if not isinstance(value, bool):
            self.fail(name, "is not true or false")
        return value

    def choice(self, name: str, kind: Callable[[str], T]) -> T:
        value = self.text(name, most=64)
        try:
            return kind(value)
        except ValueError:
            self.fail(name, f"has the unknown value {value!r}")

    def record(self, name: str, read: Callable[[Any, str], T]) -> T:
        return read(self._get(name), f"{self._where}.{name}")

    def records(self, name: str, read: Callable[[Any, str], T], *, most: int) -> list[T]:
        value = self._get(name)
        if not isinstance(value, list):
            self.fail(name, "is not a list")
        if len(value) > most:
            self.fail(name, f"has more than {most} items")
        return [read(item, f"{self._where}.{name}[{index}]") for index, item in enumerate(value)]

    def texts(self, name: str, *, most: int, longest: int = 1024) -> list[str]:
        value = self._get(name)
        if not isinstance(value, list) or len(value) > most:
            self.fail(name, f"is not a list of at most {most} strings")
        for item in value:
            if not isinstance(item, str) or len(item) > longest or "\x00" in item:
                self.fail(name, f"holds something other than a string of at most {longest} characters")
        return list(value)

    def mapping(self, name: str, *, most: int, longest: int = 1024) -> dict[str, str]:
        value = self._get(name)
        if not isinstance(value, dict) or len(value) > most:
            self.fail(name, f"is not an object of at most {most} fields")
        for key, item in value.items():
            if not isinstance(item, str) or len(item) > longest or len(key) > longest:
                self.fail(name, f"maps {key[:40]!r} to something other than a string of at most {longest}")
        return dict(value)

    def optional(self, name: str, read: Callable[[str], T]) -> Optional[T]:
        """Apply one of the readers above where the field is there and not null."""
        return read(name) if self.has(name) else None


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Drop absent fields: absent and null mean the same on the wire, and absent is shorter."""
    return {name: value for name, value in values.items() if value is not None}


def as_dicts(items: Sequence[Any]) -> list[dict[str, Any]]:
    return [item.to_dict() for item in items]
