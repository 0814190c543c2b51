"""Which of what the watches tell asks for a pass, while the operator itself writes and while it does not."""

from contextlib import suppress

import pytest

from sweeprun_operator.controller.queue import Key
from sweeprun_operator.controller.rest import Rest

KEY = Key("default", "run")
READ, OWN, ALIEN = 1, 2, 3


@pytest.fixture
def woken():
    return []


@pytest.fixture
def rest(woken):
    made = Rest(monotonic=lambda: 0.0, wake=woken.append)
    made.found(KEY, frozenset({READ}))
    return made


def test_what_the_last_pass_read_does_not_ring_and_all_else_does(rest):
    assert not rest.rings(KEY, READ)
    assert rest.rings(KEY, ALIEN)
    assert rest.rings(KEY, None), "an object is gone"
    assert rest.rings(Key("default", "other"), READ)


@pytest.mark.parametrize("early", [True, False], ids=["the watch is faster", "the answer is faster"])
def test_an_own_write_asks_for_no_pass(rest, woken, early):
    with rest.writing(KEY, READ) as written:
        if early:
            assert not rest.rings(KEY, OWN)
        written(OWN)
    assert not rest.rings(KEY, OWN)
    assert woken == []
    assert rest.holds(KEY, frozenset({OWN}))


def test_what_a_watch_tells_after_it_was_written_over_asks_for_no_pass(rest):
    for before in range(READ, READ + 3):
        with rest.writing(KEY, before) as written:
            written(before + 1)
    assert not rest.rings(KEY, READ)
    assert not rest.rings(KEY, READ + 1)
    assert not rest.holds(KEY, frozenset({READ})), "a list that shows it is not of now"


def test_what_another_changes_meanwhile_asks_for_a_pass(rest, woken):
    with rest.writing(KEY, READ) as written:
        assert not rest.rings(KEY, ALIEN)
        written(OWN)
    assert woken == [KEY]


def test_a_deletion_meanwhile_rings_at_once(rest):
    with rest.writing(KEY, READ):
        assert rest.rings(KEY, None)


def test_a_change_that_no_pass_has_read_is_not_hidden_by_a_write_upon_it(rest, woken):
    with rest.writing(KEY, ALIEN) as written:
        assert not rest.rings(KEY, ALIEN)
        written(OWN)
    assert woken == [KEY]
    assert not rest.holds(KEY, frozenset({OWN}))


def test_a_write_without_an_answer_may_have_been_made(rest, woken):
    with suppress(ConnectionError), rest.writing(KEY, READ):
        assert not rest.rings(KEY, OWN)
        raise ConnectionError
    assert woken == [KEY]
    assert rest.rings(KEY, OWN)
