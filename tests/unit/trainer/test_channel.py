"""Datagrams from the library to the entrypoint."""

import pytest

from sweeprun_protocol.codec import RecordError
from sweeprun_trainer.channel import MAX_MESSAGE, PROGRESS_SOCKET, Receiver, Sender


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def sender(receiver):
    sender = Sender({PROGRESS_SOCKET: receiver.name})
    yield sender
    sender.close()


def test_messages_arrive_in_order_and_then_there_is_none(receiver, sender):
    assert sender.send({"step": 1})
    assert sender.send({"step": 2})
    assert [receiver.receive() for _ in range(3)] == [{"step": 1}, {"step": 2}, None]


def test_outside_a_pod_of_ours_nothing_is_sent():
    sender = Sender({})
    assert sender.send({"step": 1}) is False
    sender.close()


def test_a_sender_goes_on_when_the_entrypoint_is_gone(receiver, sender):
    receiver.close()
    assert sender.send({"step": 1}) is False


def test_a_sender_does_not_wait_for_an_entrypoint_that_is_behind(receiver, sender):
    sent = 0
    while sender.send({"step": sent}):
        sent += 1
        assert sent < 100_000
    assert receiver.receive() == {"step": 0}


def test_a_message_that_is_too_long_is_refused(receiver, sender):
    assert sender.send({"step": 1, "note": "x" * MAX_MESSAGE})
    with pytest.raises(RecordError):
        receiver.receive()


def test_no_two_entrypoints_share_a_name(receiver):
    other = Receiver()
    assert other.name != receiver.name
    other.close()
