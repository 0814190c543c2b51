"""The harness bites: with a rule of the operator taken away, a schedule that meets the gap is told as a divergence.

Each rule stands in the design; each test takes away one, where it is kept, and runs what it is there for.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.faults import patience
from support.faults.schedule import Schedule
from support.faults.tries import told_until
from sweeprun_operator.cluster import execute
from sweeprun_operator.cluster.kubernetes_gateway import KubernetesGateway
from sweeprun_operator.controller import reconcile
from sweeprun_operator.core import attempts, draining, preparing


@pytest.fixture
def diverges(told, monkeypatch):
    monkeypatch.setattr(patience, "QUIET_SECONDS", 15.0)

    async def run(name):
        """What is found without the rule is its doing: with it, the scenarios end well in the other tests."""
        found = await told.tell(Schedule.read(name))
        return "\n".join(found.violations)

    return run


@pytest.fixture
def is_found(diverges):
    async def look(name, text):
        found = await told_until(lambda said: text in said, lambda: diverges(name))
        assert text in found[-1], "\n--\n".join(found)

    return look


async def test_numbers_that_are_not_written_ahead_are_found(is_found, monkeypatch):
    whole = execute.execute

    async def status_last(gateway, gathered, plan, *, told):
        done = await whole(gateway, gathered, replace(plan, status=None), told=told)
        return done if plan.status is None else await whole(gateway, gathered, replace(plan, actions=()), told=told)

    monkeypatch.setattr(reconcile, "execute", status_last)
    await is_found("undisturbed", "not written ahead")


LATE_DELETE = "recreated:late@delete-PyTorchJob#1~5"


async def test_a_delete_without_the_uid_is_found(diverges, is_found, monkeypatch):
    assert await diverges(LATE_DELETE) == ""

    async def by_name(self, path, uid, *, force=False):
        await self._call("DELETE", path, body={"propagationPolicy": "Background"})

    monkeypatch.setattr(KubernetesGateway, "_delete", by_name)
    await is_found(LATE_DELETE, "run-a0 was deleted, and the status wants it")


async def test_lists_that_need_not_be_consistent_are_found(is_found, monkeypatch):
    call = KubernetesGateway._call

    async def from_cache(self, method, path, *, query=None, **rest):
        if query and "labelSelector" in query and "continue" not in query:
            query = {**query, "resourceVersion": "0"}
        return await call(self, method, path, query=query, **rest)

    monkeypatch.setattr(KubernetesGateway, "_call", from_cache)
    await is_found("hasty", "when all before is gone")


async def test_a_prepare_that_does_not_wait_for_the_drain_is_found(is_found, monkeypatch):
    monkeypatch.setattr(preparing, "are_gone", lambda draft: True)
    monkeypatch.setattr(attempts, "are_gone", lambda draft: True)
    monkeypatch.setattr(draining, "drain", lambda draft: draining._drained(draining._delete(draft)))
    await is_found("evicted", "when all before is gone")


STALE_READS = ":".join(["evicted", *(f"snapshot@get-SweepRun#{number}~2" for number in range(5, 30, 3))])


async def test_a_status_that_overwrites_what_it_has_not_read_is_found(diverges, is_found, monkeypatch):
    assert await diverges(STALE_READS) == ""
    replace_status = KubernetesGateway.replace_status

    async def last_wins(self, raw):
        (now, *_), _ = await self.list_metadata("SweepRun", raw["metadata"]["namespace"], limit=1, token=None)
        version = now["metadata"]["resourceVersion"]
        return await replace_status(self, {**raw, "metadata": {**raw["metadata"], "resourceVersion": version}})

    monkeypatch.setattr(KubernetesGateway, "replace_status", last_wins)
    await is_found(STALE_READS, " fell")


async def test_events_that_do_not_wait_for_the_status_are_found(diverges, is_found, monkeypatch):
    assert await diverges(STALE_READS) == ""
    whole = execute.execute

    async def events_first(gateway, gathered, plan, *, told):
        await execute.emit(gateway, gathered.raw, plan.events)
        return await whole(gateway, gathered, replace(plan, events=()), told=told)

    monkeypatch.setattr(reconcile, "execute", events_first)
    await is_found(STALE_READS, "was told twice")
