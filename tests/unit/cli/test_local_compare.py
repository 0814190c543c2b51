"""Two states are the same only where every value is, by its bits and by its type."""

from __future__ import annotations

import array
import math

import pytest

from sweeprun_cli.local.compare import CompareError, final_checkpoint, flatten, parts, without_attempts

STATE = {"model": {"weight": [0.1, -0.0], "name": "linear"}, "step": 5, "rng": (3, (1, 2), None)}


class Buffer:
    """As an array of numpy looks to the comparison."""

    def __init__(self, values, dtype="float64"):
        self.shape, self.dtype, self._data = (len(values),), dtype, array.array("d", values)

    def tobytes(self):
        return self._data.tobytes()


def differences(first, second):
    return {
        part.name: part.differences for part in parts(dict(flatten(first)), dict(flatten(second))) if part.differences
    }


def changed(**changes):
    return {**STATE, **changes}


def test_the_same_state_does_not_differ():
    assert differences(STATE, {**STATE}) == {}


@pytest.mark.parametrize(
    ("other", "where"),
    [
        (changed(step=6), {"step": ("step",)}),
        (changed(step=5.0), {"step": ("step",)}),
        (changed(step=True), {"step": ("step",)}),
        (changed(model={"weight": [math.nextafter(0.1, 1), -0.0], "name": "linear"}), {"model": ("model/weight/0",)}),
        (changed(model={"weight": [0.1, 0.0], "name": "linear"}), {"model": ("model/weight/1",)}),
        (changed(rng=(3, (2, 1), None)), {"rng": ("rng/1/0", "rng/1/1")}),
        (changed(rng=[3, (1, 2), None]), {"rng": ("rng",)}),
    ],
)
def test_any_other_value_is_found_and_named(other, where):
    assert differences(STATE, other) == where


def test_a_value_that_one_state_lacks_is_found():
    assert set(differences(STATE, {"model": STATE["model"], "step": 5})) == {"layout", "rng"}
    assert "model/bias" in differences(STATE, changed(model={**STATE["model"], "bias": 0}))["model"]


def test_arrays_differ_by_their_bits_and_by_their_type():
    same, bits, kind = Buffer([1.0, 2.0]), Buffer([1.0, math.nextafter(2.0, 3)]), Buffer([1.0, 2.0], "int64")
    assert differences({"x": Buffer([1.0, 2.0])}, {"x": same}) == {}
    assert differences({"x": same}, {"x": bits}) == {"x": ("x",)}
    assert differences({"x": same}, {"x": kind}) == {"x": ("x",)}


def test_not_a_number_is_the_same_as_itself():
    assert differences({"loss": math.nan}, {"loss": math.nan}) == {}


def test_rows_for_the_tracker_differ_by_what_was_computed_and_not_by_who_computed_it():
    def rows(attempt, loss):
        return {"tracking": without_attempts({"rows": [[7, attempt, {"loss": loss}]]})}

    assert differences(rows(0, 0.5), rows(1, 0.5)) == {}
    assert differences(rows(0, 0.5), rows(1, 0.25)) == {"tracking": ("tracking/rows/0/1/loss",)}


def test_what_cannot_be_compared_is_told():
    with pytest.raises(TypeError, match="object cannot be compared"):
        dict(flatten({"x": object()}))


def test_the_final_checkpoint_is_that_of_the_last_step(tmp_path):
    with pytest.raises(CompareError, match="holds no checkpoint"):
        final_checkpoint(tmp_path)
    (tmp_path / "model.pt").write_text("")
    assert final_checkpoint(tmp_path) == tmp_path / "model.pt"
    for name in ("step-000000010.e1", "step-000000009.e2"):
        (tmp_path / name).mkdir()
    assert final_checkpoint(tmp_path) == tmp_path / "step-000000010.e1"
