"""Prepare Jobs are bounded, on the cluster and in each namespace, and no namespace waits for another's whole line."""

import copy
import dataclasses
from datetime import UTC, datetime

import pytest

from support.memory_gateway import MemoryGateway
from support.objects import condition, job, run
from sweeprun_operator.api.status import SweepRunStatus
from sweeprun_operator.cluster.gateway import RefusedError
from sweeprun_operator.controller.prepare_slots import PrepareSlots
from sweeprun_operator.controller.queue import Key
from sweeprun_operator.controller.reconcile import Next, Reconciler
from sweeprun_operator.core.plan import ChildKind, Create, Plan


def keys(namespace, count):
    return [Key(namespace, str(number)) for number in range(count)]


@pytest.fixture
def woken():
    return []


def slots(woken, most=3, most_per_namespace=2):
    return PrepareSlots(most=most, most_per_namespace=most_per_namespace, wake=woken.append)


def test_a_namespace_gets_no_more_than_its_own_bound(woken):
    made = slots(woken)
    assert [made.take(key) for key in keys("a", 4)] == [True, True, False, False]
    assert (made.held, made.waiting) == (2, 2)


def test_all_namespaces_together_get_no_more_than_the_clusters_bound(woken):
    made = slots(woken)
    wanted = [*keys("a", 2), *keys("b", 2)]
    assert [made.take(key) for key in wanted] == [True, True, True, False]


def test_asking_again_takes_no_second_slot(woken):
    made = slots(woken)
    key = Key("a", "0")
    assert made.take(key)
    assert made.take(key)
    assert made.held == 1


def test_a_slot_that_is_given_back_wakes_who_waited_longest_and_is_theirs(woken):
    made = slots(woken)
    first, second, third, fourth = keys("a", 4)
    for key in (first, second, third, fourth):
        made.take(key)
    made.release(first)
    assert woken == [third]
    assert not made.take(Key("a", "late"))
    assert made.take(third)


def test_a_line_of_one_namespace_does_not_keep_another_waiting(woken):
    made = slots(woken, most=3, most_per_namespace=3)
    held = keys("large", 50)
    for key in held:
        made.take(key)
    small = Key("small", "0")
    assert not made.take(small)
    made.release(held[0])
    assert woken == [small]


def test_namespaces_that_hold_as_many_take_turns(woken):
    made = slots(woken, most=2, most_per_namespace=2)
    running = keys("x", 2)
    for key in (*running, *keys("a", 2), *keys("b", 2)):
        made.take(key)
    for ended in range(4):
        made.release([*running, *woken][ended])
    assert [key.namespace for key in woken] == ["a", "b", "a", "b"]


def test_who_gives_up_waiting_is_not_woken(woken):
    made = slots(woken)
    first, second, third, fourth = keys("a", 4)
    for key in (first, second, third, fourth):
        made.take(key)
    made.release(third)
    made.release(first)
    assert woken == [fourth]


def test_what_runs_already_counts_even_beyond_the_bound(woken):
    made = slots(woken)
    running = keys("a", 5)
    for key in running:
        made.occupy(key)
    assert made.held == 5
    late = Key("b", "0")
    assert not made.take(late)
    for key in running[:2]:
        made.release(key)
    assert woken == []
    made.release(running[2])
    assert woken == [late]


def test_who_asks_for_a_free_slot_does_not_wait_for_one(woken):
    made = slots(woken)
    first, second, third = keys("a", 3)
    assert [made.take_free(key) for key in (first, second, third)] == [True, True, False]
    assert made.waiting == 0
    made.release(first)
    assert woken == []
    assert made.take_free(third)


FIRST, SECOND = Key("default", "first"), Key("default", "second")
NAMES = {FIRST: "first-p0", SECOND: "second-p0"}


class Decisions:
    """Prepare is due as long as the run has no Job."""

    def decide(self, observation):
        meta = observation.run.metadata
        if observation.jobs:
            return Plan()
        prepare = job(0, uid=meta.uid)
        prepare["metadata"]["name"] = f"{meta.name}-p0"
        prepare["metadata"]["labels"]["sweeprun.dev/uid"] = meta.uid
        prepare["metadata"]["ownerReferences"][0]["uid"] = meta.uid
        return Plan(status=SweepRunStatus(phase="Preparing"), actions=(Create(ChildKind.JOB, prepare),))

    def proof(self, run):
        return {"metadata": {"name": "run-a0"}}


@pytest.fixture
def gateway():
    made = MemoryGateway()
    for key in (FIRST, SECOND):
        made.put("SweepRun", run(key.name, uid=f"uid-{key.name}", status={"conditions": [condition("Accepted")]}))
    return made


@pytest.fixture
def reconciler(gateway, woken):
    return Reconciler(
        gateway,
        Decisions(),
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        told=lambda before, after: None,
        slots=slots(woken, most=1),
    )


async def test_a_run_without_a_slot_writes_nothing_and_goes_on_when_the_first_has_its_answer(
    gateway, reconciler, woken
):
    await reconciler.reconcile(FIRST)
    assert await reconciler.reconcile(SECOND) == Next(between_attempts=True)
    assert gateway.names("Job") == ["first-p0"]
    assert not gateway.read("SweepRun", "second")["status"].get("phase")
    await reconciler.reconcile(FIRST)
    assert woken == [], "its Job runs"
    gateway.read("Job", "first-p0")["status"] = {"conditions": [condition("Complete")]}
    await reconciler.reconcile(FIRST)
    assert woken == [SECOND]
    await reconciler.reconcile(SECOND)
    assert gateway.names("Job") == ["first-p0", "second-p0"]


async def test_a_run_that_is_deleted_gives_its_slot_back(gateway, reconciler, woken):
    await reconciler.reconcile(FIRST)
    await reconciler.reconcile(SECOND)
    gateway.remove("SweepRun", "first")
    await reconciler.reconcile(FIRST)
    assert woken == [SECOND]


async def test_a_run_whose_job_is_refused_gives_its_slot_back(gateway, reconciler, woken):
    error = RefusedError("exceeded quota")
    gateway.fault = lambda method, kind, name: error if (method, name) == ("create", "first-p0") else None
    assert (await reconciler.reconcile(FIRST)).failed
    assert (await reconciler.reconcile(SECOND)) == Next()
    assert gateway.names("Job") == ["second-p0"]


async def test_after_a_restart_a_job_that_runs_counts(gateway, reconciler):
    running = job(0, uid="uid-first")
    running["metadata"]["name"] = "first-p0"
    running["metadata"]["labels"]["sweeprun.dev/uid"] = "uid-first"
    gateway.put("Job", running)
    await reconciler.reconcile(FIRST)
    await reconciler.reconcile(SECOND)
    assert gateway.names("Job") == ["first-p0"]


async def test_a_run_whose_job_a_queue_holds_gives_its_slot_back(gateway, reconciler, woken):
    await reconciler.reconcile(FIRST)
    await reconciler.reconcile(SECOND)
    gateway.read("Job", "first-p0")["spec"] = {"suspend": True}
    await reconciler.reconcile(FIRST)
    assert woken == [SECOND]
    gateway.read("Job", "first-p0")["spec"] = {"suspend": False}
    await reconciler.reconcile(FIRST)
    await reconciler.reconcile(SECOND)
    assert gateway.names("Job") == ["first-p0", "second-p0"], "what was granted stays"


class Surveying(Decisions):
    """A run that is drained, with a survey to be made beside something that has to be."""

    def decide(self, observation):
        plan = super().decide(observation)
        if not plan.actions:
            return plan
        survey = copy.deepcopy(plan.actions[0].manifest)
        survey["metadata"]["name"] = f"{observation.run.metadata.name}-s0"
        survey["metadata"]["labels"]["sweeprun.dev/role"] = "survey"
        return dataclasses.replace(plan, actions=(*plan.actions, Create(ChildKind.JOB, survey, optional=True)))


async def test_a_run_that_finds_no_slot_for_a_survey_does_without_and_waits_for_nothing(gateway, woken):
    reconciler = Reconciler(
        gateway,
        Surveying(),
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        told=lambda before, after: None,
        survey_slots=slots(woken, most=1),
    )
    await reconciler.reconcile(FIRST)
    await reconciler.reconcile(SECOND)
    assert gateway.names("Job") == ["first-p0", "first-s0", "second-p0"]
    gateway.remove("Job", "first-s0")
    await reconciler.reconcile(FIRST)
    gateway.remove("Job", "second-p0")
    await reconciler.reconcile(SECOND)
    assert gateway.names("Job") == ["first-p0", "second-p0", "second-s0"]
