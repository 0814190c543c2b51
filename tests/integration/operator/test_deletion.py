"""A SweepRun that is deleted, in whatever state: its children go by their owners, and the operator touches nothing."""

from __future__ import annotations

import asyncio
import logging

import pytest

from support.manifests import make_claim, make_init, make_sweeprun
from support.operator_process import running, settings, until
from support.passes import Passes
from support.reports import CHECKPOINT, make_report
from sweeprun_protocol.prepare import Candidate
from sweeprun_protocol.reasons import BlockedReason, Outcome, StartReason
from sweeprun_protocol.records import Owner

NAME = "run"
CHILDREN = ("Job", "PyTorchJob", "Pod")


@pytest.fixture
def claimed(cluster):
    cluster.create(make_claim())


async def waiting(story):
    await story.settle()
    assert story.condition("Accepted")["status"] == "False"


async def preparing(story):
    await story.child("Job", "run-p0")
    story.played.start_helper("run-p0")


async def initializing(story):
    await story.child("Job", "run-p0")
    story.played.answer("run-p0", make_report(0, Outcome.INIT_REQUIRED))
    await story.state("Initializing")


async def starting(story):
    await story.starts()


async def queued(story):
    await starting(story)
    story.cluster.patch("PyTorchJob", "run-a0", {"spec": {"runPolicy": {"suspend": True}}})
    await story.until(lambda: story.condition("Suspended").get("reason") == "Queued", "it is queued")


async def trains(story):
    await story.trains()


async def draining(story):
    await trains(story)
    story.cluster.evict("run-a0-worker-0")
    story.played.job_status("run-a0", "Failed")
    await story.state("Draining")


async def resumed(story):
    await draining(story)
    story.played.collect_garbage()
    more = {"reason": StartReason.NEWEST_CHECKPOINT, "epoch": 2, "checkpoint": CHECKPOINT, "last_step": 540}
    await story.trains(make_report(1, Outcome.RESUME, **more), attempt=1)


async def stuck(story):
    await story.child("Job", "run-p0")
    story.played.answer("run-p0", make_report(0, Outcome.BLOCKED, blocked=BlockedReason.IO_ERROR, run_id=None))
    await story.until(lambda: story.condition("Stuck").get("status") == "True", "it is stuck")


async def suspended(story):
    await trains(story)
    story.cluster.patch("SweepRun", NAME, {"spec": {"suspend": True}})
    await story.state("Draining")
    story.played.collect_garbage()
    await story.state("Held")


async def complete(story):
    await trains(story)
    for pod in ("run-a0-master-0", "run-a0-worker-0"):
        story.played.end_pod(pod, 0)
    story.played.job_status("run-a0", "Succeeded")
    await story.child("Job", "run-p1")
    story.played.answer("run-p1", make_report(1, Outcome.COMPLETED, epoch=2, step=1000, checkpoint=CHECKPOINT))
    await story.until(lambda: story.condition("Complete").get("status") == "True", "it is complete")


async def failed(story):
    await trains(story)
    story.cluster.patch("SweepRun", NAME, {"spec": {"request": {"id": "1", "action": "Stop"}}})
    await story.state("Draining")
    story.played.collect_garbage()
    await story.until(lambda: story.condition("Failed").get("status") == "True", "it has failed")


STATES = (
    preparing,
    initializing,
    starting,
    queued,
    trains,
    draining,
    resumed,
    stuck,
    suspended,
    complete,
    failed,
)


def left(cluster):
    return [f"{kind} {one['metadata']['name']}" for kind in CHILDREN for one in cluster.list(kind)]


async def is_deleted(story):
    """And nothing of it stays, once the garbage collector has been there; gives what was there before."""
    cluster, uid = story.cluster, story.cluster.get("SweepRun", NAME)["metadata"]["uid"]
    before = left(cluster)
    for kind in ("Job", "PyTorchJob"):
        for child in cluster.list(kind):
            (owner,) = child["metadata"]["ownerReferences"]
            assert (owner["uid"], owner["controller"]) == (uid, True), child["metadata"]["name"]
    cluster.delete("SweepRun", NAME)
    assert cluster.get("SweepRun", NAME) is None, "nothing holds it back"
    writes = len(story.gateway.writes)
    assert (await story.one()).gone
    assert len(story.gateway.writes) == writes
    story.played.collect_garbage()
    assert left(cluster) == []
    assert (await story.one()).gone
    assert len(story.gateway.writes) == writes
    return before


@pytest.mark.usefixtures("claimed")
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_nothing_stays_in_the_cluster(gateway, decisions, cluster, state):
    cluster.create(make_sweeprun(NAME, **({"init": make_init()} if state is initializing else {})))
    story = Passes(gateway, decisions, cluster, NAME)
    await state(story)
    there = await is_deleted(story)
    assert there or state in (stuck, suspended, failed), "a test of nothing"


async def test_one_that_waited_for_its_claim_leaves_nothing(gateway, decisions, cluster):
    cluster.create(make_sweeprun(NAME))
    story = Passes(gateway, decisions, cluster, NAME)
    await waiting(story)
    assert await is_deleted(story) == []


# -- and one of the same name follows ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("claimed")
async def test_the_next_of_its_name_waits_for_its_pods_and_takes_its_run_over(gateway, decisions, cluster):
    manifest = make_sweeprun(NAME, resume={"adoption": {"scope": "Sweep"}})
    uid = cluster.create(manifest)["metadata"]["uid"]
    story = Passes(gateway, decisions, cluster, NAME)
    await resumed(story)
    cluster.delete("SweepRun", NAME)
    for kind in ("Job", "PyTorchJob"):
        for child in cluster.list(kind):
            cluster.delete(kind, child["metadata"]["name"])
    pods = ["run-a1-master-0", "run-a1-worker-0"]
    for pod in pods:
        cluster.delete("Pod", pod)  # bound to a node without a kubelet: it ends until the test says so
    for pod in cluster.list("Pod"):
        if pod["metadata"]["name"] not in pods:
            story.played.vanish(pod["metadata"]["name"])
    cluster.create(manifest)
    story = Passes(gateway, decisions, cluster, NAME)
    await story.child("Job", "run-p0")
    owner = Owner(cluster=await gateway.cluster_id(), namespace=cluster.namespace, name=NAME, uid=uid)
    candidate = Candidate(run_id="digits-lr.r.1", epoch=2, owner=owner, idle_seconds=0)
    story.played.answer("run-p0", make_report(0, Outcome.CANDIDATES, candidates=(candidate,), run_id=None))
    for pod in pods:
        for _ in range(3):
            await story.settle()
            story.advance(60)
        assert story.created() == ["run-p0"], f"{pod} may still write"
        story.played.vanish(pod)
    assert story.condition("Stuck")["reason"] == "OwnerEnding"
    await story.child("Job", "run-p1")
    more = {"reason": StartReason.NEWEST_CHECKPOINT, "epoch": 3, "checkpoint": CHECKPOINT, "adopted": True}
    story.played.answer("run-p1", make_report(1, Outcome.RESUME, **more))
    await story.child("PyTorchJob", "run-a0")
    assert story.condition("Stuck")["status"] == "False"
    assert story.status["runId"] == "digits-lr.r.1"


@pytest.mark.usefixtures("claimed")
async def test_the_next_of_its_name_waits_for_names_that_are_still_taken(gateway, decisions, cluster):
    cluster.create(make_sweeprun(NAME))
    await preparing(Passes(gateway, decisions, cluster, NAME))
    cluster.delete("SweepRun", NAME)
    cluster.create(make_sweeprun(NAME))
    story = Passes(gateway, decisions, cluster, NAME)
    for _ in range(4):
        await story.one()
    assert story.created() == []
    assert "NameTaken" in [event["reason"] for event in cluster.events_of(NAME)]
    story.played.collect_garbage()
    await story.child("Job", "run-p0")


# -- with all of its namespace -----------------------------------------------------------------------------------------


def finish_namespace(cluster):
    """The namespace controller's work."""
    for kind in ("SweepRun", *CHILDREN, "PersistentVolumeClaim", "Event"):
        for one in cluster.list(kind):
            name = one["metadata"]["name"]
            if one["metadata"].get("finalizers"):
                cluster.patch(kind, name, {"metadata": {"finalizers": None}})
            cluster.delete(kind, name, grace=0)
    path = f"/api/v1/namespaces/{cluster.namespace}"
    found = cluster.call("GET", path)
    cluster.call("PUT", f"{path}/finalize", json={**found, "spec": {"finalizers": []}})


@pytest.mark.usefixtures("claimed")
async def test_a_namespace_that_is_deleted_ends_quietly(gateway, decisions, control_plane, cluster, kubeconfig, caplog):
    home = control_plane.new_namespace("operator").namespace
    cluster.create(make_sweeprun(NAME))
    story = Passes(gateway, decisions, cluster, NAME)
    await trains(story)
    chosen = settings(kubeconfig, cluster.namespace, lease_namespace=home, resync_seconds=1.0)

    def passes():
        return process.metrics.registry.get_sample_value("sweeprun_reconcile_seconds_count")

    async with running(gateway, decisions, chosen) as process:
        await until(lambda: process.health.unready() is None, 20)
        cluster.call("DELETE", f"/api/v1/namespaces/{cluster.namespace}")
        cluster.delete("Pod", "run-a0-worker-0")
        story.played.job_status("run-a0", "Failed")
        await until(lambda: cluster.get("PyTorchJob", "run-a0") is None, 20)
        story.played.collect_garbage()
        await until(lambda: "is being terminated" in story.condition("Stuck").get("message", ""), 20)
        began = passes()
        await asyncio.sleep(3)
        assert passes() - began < 8, "refused, it tries less and less often"
        await asyncio.to_thread(finish_namespace, cluster)
        await until(lambda: cluster.get("SweepRun", NAME) is None and len(process.queue) == 0, 20)
        await asyncio.sleep(1)
        ended = passes()
        await asyncio.sleep(2)
        assert passes() == ended, "nothing of it is looked at any more"
        assert process.health.trouble() is None
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
