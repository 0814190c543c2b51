"""A pass over the data that was interrupted goes on with the same batches, and the random generators after it."""

from __future__ import annotations

import io
import random

import numpy
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from sweeprun_trainer.loader import ResumableLoader
from sweeprun_trainer.stateful import RandomState

# torchdata calls what torch 2.15 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")

LENGTH = 22


class Noisy(Dataset):
    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        return index + torch.rand(1) * random.random() + float(numpy.random.normal())


class Stream(IterableDataset):
    def __iter__(self):
        for index in range(LENGTH):
            yield index + torch.rand(1)


def shuffled(kind=DataLoader, **settings):
    return kind(Noisy(), 4, shuffle=True, **settings)


KINDS = {
    "plain": shuffled,
    "two workers": lambda: shuffled(num_workers=2),
    "own generator": lambda: shuffled(generator=torch.Generator().manual_seed(5)),
    "own generator, two workers": lambda: shuffled(generator=torch.Generator().manual_seed(5), num_workers=2),
    "distributed": lambda: DataLoader(Noisy(), 4, sampler=DistributedSampler(range(LENGTH), 2, 1, seed=3)),
    "stream": lambda: DataLoader(Stream(), 4),
    "stateful": lambda: shuffled(StatefulDataLoader),
    "stateful, own generator": lambda: shuffled(StatefulDataLoader, generator=torch.Generator().manual_seed(5)),
}
PASSES = 3


def seed(value):
    random.seed(value)
    numpy.random.seed(value)
    torch.manual_seed(value)


class Trained:
    """What training sees and draws; saved after `at` batches, as a checkpointer saves it: the generators last."""

    def __init__(self, loader, *, at):
        self.loader, self.at = ResumableLoader(loader), at
        self.seen, self.saved = [], None

    def run(self, limit=None):
        count = 0
        while self.loader.epoch < PASSES:
            for batch in self.loader:
                self.seen.append((self.loader.epoch, batch.flatten().tolist(), torch.rand(1).item()))
                count += 1
                if count == self.at:
                    self.saved = [self.loader.state_dict(), RandomState().state_dict()]
                if count == limit:
                    return self
            random.random()
        return self


def read_back(state):
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


@pytest.mark.parametrize("at", [1, 3, 6, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_with_the_same_batches_and_draws(kind, at):
    if "workers" in kind and at in (3, 7):
        pytest.skip("processes are slow to start")
    seed(1)
    whole = Trained(KINDS[kind](), at=at).run()
    seed(2)
    torch.rand(7)
    resumed = Trained(KINDS[kind](), at=None)
    loader, generators = read_back(whole.saved)
    resumed.loader.load_state_dict(loader)
    RandomState().load_state_dict(generators)
    assert resumed.run().seen == whole.seen[at:]


def test_its_twin_whose_generators_are_restored_too_early_does_not():
    seed(1)
    whole = Trained(shuffled(), at=3).run()
    seed(2)
    resumed = Trained(shuffled(), at=None)
    loader, generators = read_back(whole.saved)
    RandomState().load_state_dict(generators)
    resumed.loader.load_state_dict(loader)
    assert resumed.run().seen != whole.seen[3:]


def test_between_two_passes_the_next_one_begins():
    seed(1)
    loader = ResumableLoader(shuffled())
    list(loader)
    state, generators = loader.state_dict(), RandomState().state_dict()
    assert loader.epoch == 1
    expected = [batch.tolist() for batch in loader]
    other = ResumableLoader(shuffled())
    other.load_state_dict(state)
    RandomState().load_state_dict(generators)
    assert other.epoch == 1
    assert [batch.tolist() for batch in other] == expected


def test_a_pass_that_is_left_is_over():
    loader = ResumableLoader(shuffled())
    for _ in loader:
        break
    assert len(list(loader)) == len(loader) == 6
    assert loader.epoch == 2


def test_a_loader_that_gives_less_than_it_did_is_an_error():
    loader = ResumableLoader(shuffled())
    batches = iter(loader)
    for _ in range(5):
        next(batches)
    with pytest.raises(ValueError, match="gave 5 batches of this pass, and gives 2 now"):
        ResumableLoader(DataLoader(Noisy(), 11)).load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match="was a StatefulDataLoader and is none now"):
        ResumableLoader(shuffled(StatefulDataLoader)).load_state_dict(loader.state_dict())
