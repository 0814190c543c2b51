"""Records behave as dataclasses of the standard library do."""

from __future__ import annotations

import dataclasses
from typing import Optional

import pytest

from sweeprun_protocol import frozen


def defined(dataclass):
    @dataclass(frozen=True)
    class Record:
        one: int
        other: Optional[str] = None

    @dataclass(frozen=True)
    class Longer(Record):
        """With one more."""

        more: tuple[int, ...] = ()

    return Record, Longer


OURS, THEIRS = defined(frozen.dataclass), defined(dataclasses.dataclass)


@pytest.mark.parametrize("number", [0, 1], ids=["record", "of a record"])
@pytest.mark.parametrize("values", [(1,), (1, "x"), (2, None)], ids=str)
def test_texts_and_hashes_are_those_of_the_standard_library(number, values):
    ours, theirs = OURS[number](*values), THEIRS[number](*values)
    assert repr(ours) == repr(theirs)
    assert hash(ours) == hash(theirs)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)


def test_equal_is_what_is_of_one_class_and_has_equal_fields():
    record, longer = OURS
    assert record(1, "x") == record(1, "x")
    assert record(1, "x") != record(1, "y")
    assert record(1) != longer(1)
    assert record(1) != (1, None)
    assert {record(1), record(1), record(2)} == {record(1), record(2)}
    assert dataclasses.replace(record(1), one=2) == record(2)


def test_a_record_is_not_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        OURS[0](1).one = 2


def test_what_can_be_changed_cannot_be_hashed():
    @frozen.dataclass()
    class Draft:
        """May be changed."""

        one: int = 1

    draft = Draft()
    draft.one = 2
    assert draft == Draft(2)
    with pytest.raises(TypeError):
        hash(draft)
