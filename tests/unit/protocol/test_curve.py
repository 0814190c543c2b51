"""Rows of metrics: what one side writes the other reads; what is no row is nothing, never an exception."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeprun_protocol.curve import MAX_METRICS, MAX_NAME, decode_row, encode_row
from sweeprun_protocol.layout import MAX_STEP

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e299, max_value=1e299)


@given(st.integers(0, MAX_STEP), st.dictionaries(st.text(max_size=MAX_NAME), NUMBERS, max_size=MAX_METRICS))
def test_what_is_written_is_read(step, metrics):
    assert decode_row(encode_row(step, metrics)) == (step, metrics)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | NUMBERS | st.text(), st.lists).map(lambda it: json.dumps(it).encode())
)
def test_what_is_no_row_is_nothing(line):
    assert decode_row(line) is None


@pytest.mark.parametrize(
    "line",
    [
        b'{"step": true, "metrics": {}}',
        b'{"step": 1.5, "metrics": {}}',
        b'{"step": -1, "metrics": {}}',
        b'{"step": 1000000000000, "metrics": {}}',
        b'{"step": 1, "metrics": []}',
        b"[" * 100_000,
    ],
)
def test_steps_and_shapes_are_bounded(line):
    assert decode_row(line) is None


def test_values_that_are_no_numbers_are_left_out():
    line = b'{"step": 1, "metrics": {"a": NaN, "b": 1e999, "c": "x", "d": true, "e": 2, "' + b"f" * 65 + b'": 1}}'
    assert decode_row(line) == (1, {"e": 2.0})
