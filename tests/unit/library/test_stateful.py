"""What may be part of a checkpoint beside objects that have torch's two methods."""

from __future__ import annotations

import io
import random

import numpy
import pytest
import torch

from sweeprun_trainer.state import items
from sweeprun_trainer.stateful import Buffers, as_stateful

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


def model_with_buffers(value):
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    model[1].register_buffer("seen", torch.full((1,), value))
    model[1].register_buffer("cache", torch.full((1,), value), persistent=False)
    model[0].running_mean.fill_(value)
    return model


def test_buffers_are_set_in_place_without_parameters_and_caches():
    model, other = model_with_buffers(3.0), model_with_buffers(5.0)
    state = read_back(Buffers(model).state_dict())
    weight, mean = other[1].weight.clone(), other[0].running_mean
    Buffers(other).load_state_dict(state)
    assert state.keys() == {"0.running_mean", "0.running_var", "0.num_batches_tracked", "1.seen"}
    assert other[0].running_mean is mean
    assert (mean.tolist(), other[1].seen.item(), other[1].cache.item()) == ([3.0, 3.0], 3.0, 5.0)
    assert torch.equal(other[1].weight, weight)


def test_buffers_of_another_module_are_refused():
    with pytest.raises(KeyError, match=r"the buffer 1\.seen is in the checkpoint or in the module"):
        Buffers(torch.nn.Sequential(torch.nn.BatchNorm1d(2))).load_state_dict(
            Buffers(model_with_buffers(1.0)).state_dict()
        )


@pytest.mark.parametrize(
    ("rank", "written"), [(0, ["model.pt", "rng-rank-0.pt"]), (1, ["model-rank-1.pt", "rng-rank-1.pt"])]
)
def test_every_rank_but_the_first_writes_its_buffers_beside_the_shared_file(rank, written):
    found = items({"model": model_with_buffers(1.0), "scaler": torch.amp.GradScaler("cpu")}, {}, rank=rank)
    assert [item.file for item in found if item.own and item.file != "scaler.pt"] == written
    assert [item.file for item in found if item.shared] == ["model.pt", "scaler.pt"], "read by every rank"
