import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeprun_protocol.codec import MAX_DEPTH, Fields, RecordError, dump, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=5))
def test_what_was_dumped_is_parsed_again_and_dumped_to_the_same_bytes(value):
    data = dump(value)
    assert parse(data, where="x") == value
    assert dump(parse(data, where="x")) == data


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data):
    with contextlib.suppress(RecordError):
        assert isinstance(parse(data, where="the/file.json"), dict)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"[]", "not a JSON object"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"a": NaN}', "not a JSON number"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        (b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "nested deeper"),
        (b'{"a": "' + b"x" * 2000 + b'"}', "more than the 1000 allowed"),
    ],
    ids=["list", "empty", "not utf-8", "nan", "bomb", "one too deep", "too large"],
)
def test_hostile_json_is_refused_and_named(data, what):
    with pytest.raises(RecordError, match=what):
        parse(data, where="x", limit=1_000_000 if b"[[" in data else 1000)


@pytest.mark.parametrize(
    ("value", "read", "what"),
    [
        ({}, lambda f: f.text("a"), "is missing"),
        ({"a": 1}, lambda f: f.text("a"), "is not a string"),
        ({"a": "xy"}, lambda f: f.text("a", most=1), "is longer than 1"),
        ({"a": "\x00"}, lambda f: f.text("a"), "NUL"),
        ({"a": True}, lambda f: f.integer("a"), "is not an integer"),
        ({"a": -1}, lambda f: f.integer("a"), "is not between"),
        ({"a": 2**60}, lambda f: f.integer("a"), "is not between"),
        ({"a": "1"}, lambda f: f.number("a"), "is not a number"),
        ({"a": 1}, lambda f: f.flag("a"), "is not true or false"),
        ({"a": {}}, lambda f: f.texts("a", most=1), "is not a list"),
        ({"a": ["x", "y"]}, lambda f: f.texts("a", most=1), "is not a list of at most 1"),
        ({"a": [1]}, lambda f: f.texts("a", most=1), "something other than a string"),
        ({"a": {"k": 1}}, lambda f: f.mapping("a", most=1), "something other than a string"),
    ],
)
def test_a_wrong_field_is_refused_by_name(value, read, what):
    with pytest.raises(RecordError, match=what) as caught:
        read(Fields(value, "file.json"))
    assert "'a'" in str(caught.value)
    assert caught.value.where == "file.json"


def test_null_and_absent_are_the_same_to_an_optional_field():
    for value in ({}, {"a": None}):
        fields = Fields(value, "x")
        assert fields.optional("a", fields.text) is None
