"""What may be part of a checkpoint beside objects that have torch's two methods."""

from __future__ import annotations

import io
import random

import numpy
import pytest
import torch

from sweeprun_trainer.stateful import as_stateful

GENERATORS = {
    "torch": (lambda seed: torch.Generator().manual_seed(seed), lambda one: torch.rand(3, generator=one).tolist()),
    "python": (random.Random, lambda one: [one.gauss(0, 1), one.random()]),
    **{
        kind: (
            lambda seed, kind=kind: numpy.random.Generator(getattr(numpy.random, kind)(seed)),
            lambda one: [one.random(), int(one.integers(5, dtype=numpy.uint32)), one.normal()],
        )
        for kind in ("PCG64", "MT19937", "Philox", "SFC64")
    },
}


def read_back(state):
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_goes_on_where_it_was(kind):
    make, draw = GENERATORS[kind]
    generator, other = make(1), make(2)
    draw(generator)
    state = read_back(as_stateful("own", generator).state_dict())
    expected = [draw(generator) for _ in range(3)]
    as_stateful("own", other).load_state_dict(state)
    assert [draw(other) for _ in range(3)] == expected


def test_a_dictionary_is_set_in_place():
    values, other = {"batches": 3, "best": 0.5}, {"batches": 0, "left": 1}
    state = read_back(as_stateful("counts", values).state_dict())
    values["batches"] = 4
    as_stateful("counts", other).load_state_dict(state)
    assert other == {"batches": 3, "best": 0.5}


@pytest.mark.parametrize("value", [3, "text", [1], object()])
def test_what_cannot_be_set_in_place_is_refused_with_what_to_do(value):
    with pytest.raises(TypeError, match=r"'best' has no state_dict\(\).* put numbers into a dictionary"):
        as_stateful("best", value)
