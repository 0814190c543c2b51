"""A clock that tests set."""

import pytest


class Hand:
    now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Hand()
