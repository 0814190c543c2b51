"""At most one holder; the dead are succeeded after a while, the leaving at once."""

import asyncio

import pytest

from support.memory_gateway import MemoryGateway
from sweeprun_operator.cluster.gateway import GatewayError
from sweeprun_operator.controller.lease import Lease, LeaseTimes

TIMES = LeaseTimes(duration=15, renew=0.001, give_up=10.0, look=0.001)


class Hand:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def gateway():
    return MemoryGateway()


@pytest.fixture
def clock():
    return Hand()


def lease(gateway, identity, clock, times=TIMES):
    return Lease(gateway, namespace="system", name="lock", identity=identity, monotonic=clock, times=times)


def holder(gateway):
    return gateway.read("Lease", "lock", "system")["spec"]["holderIdentity"]


async def acquired(one, *, tries=30):
    """Whether it gets the Lease within some looks at it."""
    task = asyncio.create_task(one.acquire())
    for _ in range(tries):
        await asyncio.sleep(0.001)
    got = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return got


async def test_the_first_one_gets_it(gateway, clock):
    first = lease(gateway, "a", clock)
    assert await acquired(first)
    assert first.holds
    assert holder(gateway) == "a"


async def test_a_second_one_waits_while_the_first_renews(gateway, clock):
    first, second = lease(gateway, "a", clock), lease(gateway, "b", clock)
    assert await acquired(first)
    keeping = asyncio.create_task(first.keep())
    waiting = asyncio.create_task(second.acquire())
    for _ in range(40):
        await asyncio.sleep(0.002)
        clock.now += 1
    assert first.holds
    assert not waiting.done()
    for task in (keeping, waiting):
        task.cancel()
    await asyncio.gather(keeping, waiting, return_exceptions=True)


async def test_the_dead_are_succeeded_after_the_whole_duration_was_watched(gateway, clock):
    assert await acquired(lease(gateway, "a", clock))
    clock.now += 1000  # however old it is: this one has only now begun to watch
    second = lease(gateway, "b", clock)
    assert not await acquired(second)
    clock.now += 14.9
    assert not await acquired(second)
    clock.now += 0.1
    assert await acquired(second)
    assert holder(gateway) == "b"
    assert gateway.read("Lease", "lock", "system")["spec"]["leaseTransitions"] == 2


async def test_a_container_that_was_restarted_goes_on_at_once(gateway, clock):
    assert await acquired(lease(gateway, "a", clock))
    assert await acquired(lease(gateway, "a", clock))


async def test_who_leaves_makes_room_at_once(gateway, clock):
    first = lease(gateway, "a", clock)
    assert await acquired(first)
    await first.release()
    assert not first.holds
    assert await acquired(lease(gateway, "b", clock))


async def test_who_cannot_renew_gives_up_before_another_may_take_it(gateway, clock):
    first = lease(gateway, "a", clock)
    assert await acquired(first)
    gateway.fault = lambda method, kind, name: GatewayError("away")
    keeping = asyncio.create_task(first.keep())
    await asyncio.sleep(0.01)
    assert not keeping.done()
    clock.now += TIMES.give_up
    await asyncio.wait_for(keeping, 5)
    assert not first.holds
    assert TIMES.give_up < TIMES.duration


async def test_a_call_that_hangs_does_not_hide_that_the_time_is_up(gateway):
    times = LeaseTimes(duration=15, renew=0.001, give_up=0.1, look=0.001)
    loop = asyncio.get_running_loop()
    first = lease(gateway, "a", loop.time, times)
    assert await acquired(first)

    async def hang(namespace, name, raw):
        await asyncio.Event().wait()

    gateway.replace_lease = hang
    await asyncio.wait_for(first.keep(), 5)
    assert not first.holds


async def test_renewals_that_take_long_keep_it(gateway):
    """Each takes longer than what was left of the time when the pause after it began."""
    times = LeaseTimes(duration=15, renew=0.3, give_up=0.8, look=0.001)
    loop = asyncio.get_running_loop()
    first = lease(gateway, "a", loop.time, times)
    assert await acquired(first)
    renew, renewals = gateway.replace_lease, []

    async def slow(namespace, name, raw):
        await asyncio.sleep(0.3)
        renewals.append(await renew(namespace, name, raw))
        return renewals[-1]

    gateway.replace_lease = slow
    keeping = asyncio.create_task(first.keep())
    await asyncio.wait({keeping}, timeout=2)
    assert len(renewals) > 2
    assert not keeping.done()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_who_was_succeeded_notices(gateway, clock):
    first = lease(gateway, "a", clock)
    assert await acquired(first)
    found = gateway.read("Lease", "lock", "system")
    gateway.put("Lease", {**found, "spec": {**found["spec"], "holderIdentity": "b"}})
    await asyncio.wait_for(first.keep(), 5)
    assert not first.holds
    await first.release()
    assert holder(gateway) == "b"


async def test_a_renewal_that_was_applied_without_an_answer_loses_nothing(gateway, clock):
    first = lease(gateway, "a", clock)
    assert await acquired(first)
    faults = [GatewayError("timed out")]
    gateway.after_apply = lambda method, kind, name: faults.pop() if faults else None
    keeping = asyncio.create_task(first.keep())
    await asyncio.sleep(0.03)
    assert not faults
    clock.now += 5
    await asyncio.sleep(0.03)
    clock.now += 9
    assert first.holds
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
