"""A key waits once, is worked on by one, comes again when it was wanted meanwhile, and backs off alone."""

import asyncio
import heapq

import pytest

from sweeprun_operator.controller.queue import MOST_BACKOFF, Key, Queue

A, B = Key("n", "a"), Key("n", "b")


class Timer:
    def __init__(self, at):
        self.at = at
        self.cancelled = False

    def when(self):
        return self.at

    def cancel(self):
        self.cancelled = True


class Clock:
    """An event loop's clock that is turned by hand."""

    def __init__(self):
        self.now = 0.0
        self._pending = []

    def time(self):
        return self.now

    def call_later(self, delay, callback, key):
        timer = Timer(self.now + delay)
        heapq.heappush(self._pending, (timer.at, len(self._pending), timer, callback, key))
        return timer

    def turn(self, seconds):
        self.now += seconds
        while self._pending and self._pending[0][0] <= self.now:
            *_, timer, callback, key = heapq.heappop(self._pending)
            if not timer.cancelled:
                callback(key)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(clock):
    return Queue(jitter=lambda: 0.0, timers=clock)


async def test_keys_come_in_order_and_each_once(queue):
    for key in (A, B, A, A):
        queue.add(key)
    assert len(queue) == 2
    assert [await queue.take(), await queue.take()] == [A, B]
    assert len(queue) == 0


async def test_a_namespace_with_many_keys_lets_others_have_their_turn(queue):
    for number in range(100):
        queue.add(Key("large", str(number)))
    for key in (Key("small", "a"), Key("small", "b"), Key("smaller", "a")):
        queue.add(key)
    taken = [(await queue.take()).namespace for _ in range(6)]
    assert taken == ["large", "small", "smaller", "large", "small", "large"]


async def test_a_namespace_that_has_as_many_in_work_as_it_may_lets_others_pass(clock):
    queue = Queue(jitter=lambda: 0.0, timers=clock, most_per_namespace=2)
    for number in range(4):
        queue.add(Key("large", str(number)))
    first, _ = [await queue.take() for _ in range(2)]
    third = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not third.done()
    queue.add(Key("small", "a"))
    assert await asyncio.wait_for(third, 5) == Key("small", "a")
    fourth = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not fourth.done()
    queue.done(first)
    assert await asyncio.wait_for(fourth, 5) == Key("large", "2")
    assert len(queue) == 1


async def test_within_a_namespace_the_order_stays(queue):
    keys = [Key(namespace, str(number)) for number in range(3) for namespace in ("m", "n")]
    for key in keys:
        queue.add(key)
    taken = [await queue.take() for _ in keys]
    assert [key for key in taken if key.namespace == "n"] == [key for key in keys if key.namespace == "n"]
    assert len(queue) == 0


async def test_preferred_keys_go_before_others_of_their_namespace_and_never_alone(queue):
    wait_for_attempt = [Key("n", f"preferred-{number}") for number in range(5)]
    for key in wait_for_attempt:
        queue.prefer(key, True)
    for key in [A, B, *wait_for_attempt]:
        queue.add(key)
    taken = [(await queue.take()).name for _ in range(7)]
    assert taken == ["preferred-0", "preferred-1", "preferred-2", "a", "preferred-3", "preferred-4", "b"]
    assert len(queue) == 0


async def test_a_preferred_key_takes_no_turn_of_another_namespace(queue):
    queue.prefer(A, True)
    for key in (B, Key("m", "x"), A):
        queue.add(key)
    assert [await queue.take() for _ in range(3)] == [A, Key("m", "x"), B]


async def test_a_key_that_is_preferred_no_longer_waits_like_any_other(queue):
    queue.prefer(B, True)
    queue.prefer(B, False)
    for key in (A, B):
        queue.add(key)
    assert [await queue.take() for _ in range(2)] == [A, B]


async def test_a_key_that_is_worked_on_is_not_given_to_another(queue):
    queue.add(A)
    await queue.take()
    queue.add(A)
    assert len(queue) == 0


async def test_a_key_wanted_while_worked_on_comes_again_once(queue):
    queue.add(A)
    await queue.take()
    queue.add(A)
    queue.add(A)
    queue.done(A)
    assert len(queue) == 1
    await queue.take()
    queue.done(A)
    assert len(queue) == 0


async def test_take_waits_for_a_key(queue):
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.add(A)
    assert await waiting == A


async def test_a_delayed_key_comes_in_time(queue, clock):
    queue.add_after(A, 10)
    clock.turn(9.9)
    assert len(queue) == 0
    clock.turn(0.1)
    assert len(queue) == 1


@pytest.mark.parametrize("delays", [(10, 3), (3, 10)])
async def test_of_two_delays_the_earlier_counts(queue, clock, delays):
    for delay in delays:
        queue.add_after(A, delay)
    clock.turn(3)
    assert len(queue) == 1
    queue.done(await queue.take())
    clock.turn(100)
    assert len(queue) == 0


async def test_taking_a_key_drops_its_delay(queue, clock):
    queue.add_after(A, 5)
    queue.add(A)
    queue.done(await queue.take())
    clock.turn(100)
    assert len(queue) == 0


async def test_no_delay_is_at_once(queue):
    queue.add_after(A, 0)
    assert len(queue) == 1


async def test_failures_back_off_for_each_key_alone_and_to_a_limit(queue):
    assert [queue.retry(A) for _ in range(4)] == [0.25, 0.5, 1.0, 2.0]
    assert queue.retry(B) == 0.25
    for _ in range(2000):
        last = queue.retry(A)
    assert last == MOST_BACKOFF


async def test_a_success_starts_the_backoff_anew(queue):
    queue.retry(A)
    queue.retry(A)
    queue.forget(A)
    assert queue.retry(A) == 0.25


async def test_the_server_may_ask_for_more_patience(queue):
    assert queue.retry(A, least=30) == 30


async def test_jitter_stretches(clock):
    assert Queue(jitter=lambda: 1.0, timers=clock).retry(A) == pytest.approx(0.375)


async def test_a_closed_queue_delivers_nothing_later(queue, clock):
    queue.add_after(A, 5)
    queue.close()
    clock.turn(100)
    assert len(queue) == 0


async def test_it_lives_on_a_real_event_loop():
    queue = Queue(jitter=lambda: 0.0)
    queue.add_after(A, 0.01)
    assert await asyncio.wait_for(queue.take(), 5) == A
