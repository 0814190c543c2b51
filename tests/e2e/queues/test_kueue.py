"""Runs in a queue of the real Kueue: what waits, waits without a timer; what is preempted loses nothing and counts
nowhere."""

from __future__ import annotations

import pytest

from support.cluster import eventually
from support.kueue import Queue
from support.kueue.queues import PRIORITY_LABEL, QUEUE_LABEL
from support.kueue.running import MANAGED
from support.reports import CHECKPOINT, make_report
from sweeprun_protocol.reasons import Outcome, StartReason

from .conftest import QUEUE

pytestmark = pytest.mark.alone
TEN_DAYS = 864_000


def report(number, outcome, **more):
    return make_report(number, outcome, epoch=number + 1, **more)


FRESH = report(0, Outcome.FRESH, reason=StartReason.FIRST_START)
RESUME = report(1, Outcome.RESUME, reason=StartReason.NEWEST_CHECKPOINT, checkpoint=CHECKPOINT, last_step=540)


async def is_made(story, number=0, answer=FRESH):
    await story.child("Job", f"run-p{number}")
    story.played.answer(f"run-p{number}", answer)
    return await story.child("PyTorchJob", f"run-a{number}")


async def runs(story, number=0):
    is_admitted(story.cluster, f"run-a{number}")
    story.played.start_attempt(f"run-a{number}")
    active(story.cluster, f"run-a{number}", 1)
    await story.state("Running")


def is_admitted(cluster, name, kind="PyTorchJob"):
    eventually(lambda: not is_suspended(cluster, name, kind), f"Kueue admits {name}", timeout=90)


def is_preempted(cluster, name):
    eventually(lambda: is_suspended(cluster, name), f"Kueue suspends {name}", timeout=90)


def is_suspended(cluster, name, kind="PyTorchJob"):
    spec = cluster.get(kind, name)["spec"]
    return (spec if kind == "Job" else spec["runPolicy"]).get("suspend") is True


def active(cluster, name, count):
    """As training-operator counts pods: Kueue hands a quota on when none is left."""
    statuses = {kind: {"active": count} for kind in ("Master", "Worker")}
    cluster.patch("PyTorchJob", name, {"status": {"replicaStatuses": statuses}}, subresource="/status")


def others(cluster, queue, *, priority):
    """Somebody else's job that needs the whole queue."""
    container = {"name": "pytorch", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    labels = {QUEUE_LABEL: QUEUE, PRIORITY_LABEL: queue.priority(priority)}
    master = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    cluster.create(
        {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {"name": "others", "labels": labels},
            "spec": {"pytorchReplicaSpecs": {"Master": master}},
        }
    )


def nothing_counted(story):
    counts = story.status["counts"]
    return (counts["disruptions"], counts["failures"], counts["neverStarted"]) == (0, 0, 0)


async def is_taken_down(story, queue, number=0):
    name = f"run-a{number}"
    await story.until(lambda: story.cluster.get("PyTorchJob", name) is None, f"{name} is taken down")
    story.played.collect_garbage()
    queue.collect_garbage()


async def test_a_run_waits_for_its_queue_without_a_timer_and_starts_when_it_is_admitted(tell, cluster):
    queue = Queue.make(cluster, QUEUE, gpu="0")
    story = tell()
    job = await is_made(story)
    assert job["spec"]["runPolicy"]["suspend"] is True, "by Kueue's webhook: we leave it out"
    await story.settle()
    assert story.status["phase"] == "Queued"
    story.advance(TEN_DAYS)
    assert (await story.settle()).after_seconds is None
    assert story.status["current"]["state"] == "Starting"
    assert [pod["metadata"]["name"] for pod in cluster.list("Pod")] == ["run-p0-0"]
    queue.give(gpu="2")
    await runs(story)
    assert story.condition("Suspended")["status"] == "False"
    assert story.status["current"]["attempt"] == 0
    assert nothing_counted(story)


async def test_a_preempted_run_queues_again_and_goes_on_from_its_checkpoint(tell, cluster):
    queue = Queue.make(cluster, QUEUE, gpu="2")
    story = tell(limits={"maxDisruptions": 1, "maxFailures": 1, "maxNeverStarted": 1})
    await is_made(story)
    await runs(story)
    others(cluster, queue, priority=1000)
    is_preempted(cluster, "run-a0")
    await is_taken_down(story, queue)
    is_admitted(cluster, "others")

    second = await is_made(story, 1, RESUME)
    await story.settle()
    assert second["spec"]["runPolicy"]["suspend"] is True
    assert story.status["phase"] == "Queued"
    story.advance(TEN_DAYS)
    assert (await story.settle()).after_seconds is None
    assert is_suspended(cluster, "run-a1")

    cluster.delete("PyTorchJob", "others")
    queue.collect_garbage()
    await runs(story, 1)
    first = story.status["history"][0]
    assert (first["cause"], first["kind"]) == ("QueueSuspended", "Neutral")
    assert nothing_counted(story)
    assert story.status["counts"]["resumes"] == 1
    assert "Waiting" not in [event["reason"] for event in cluster.events_of("run")], "no backoff"


async def test_a_run_that_nobody_outranks_is_left_alone(tell, cluster):
    """The twin of the preemption: the other job waits."""
    queue = Queue.make(cluster, QUEUE, gpu="2")
    story = tell()
    await is_made(story)
    await runs(story)
    others(cluster, queue, priority=0)
    eventually(lambda: queue.is_pending("others"), "Kueue has looked at the other job", timeout=60)
    assert is_suspended(cluster, "others")
    assert not is_suspended(cluster, "run-a0")
    await story.settle()
    assert story.status["current"]["state"] == "Running"


async def test_what_we_suspend_leaves_the_queue_and_comes_back(tell, cluster):
    queue = Queue.make(cluster, QUEUE, gpu="2")
    story = tell()
    await is_made(story)
    await runs(story)
    cluster.patch("SweepRun", "run", {"spec": {"suspend": True}})
    await is_taken_down(story, queue)
    await story.settle()
    assert story.status["phase"] == "Suspended"
    eventually(lambda: queue.workloads() == [], "nothing of it holds quota", timeout=60)
    cluster.patch("SweepRun", "run", {"spec": {"suspend": False}})
    await is_made(story, 1, RESUME)
    await runs(story, 1)
    assert story.status["history"][0]["cause"] == "Suspended"
    assert nothing_counted(story)


async def test_a_prepare_is_no_business_of_a_queue_that_it_does_not_name(tell, cluster):
    Queue.make(cluster, QUEUE, gpu="0")
    story = tell()
    await story.child("Job", "run-p0")
    assert not is_suspended(cluster, "run-p0", "Job")


@pytest.mark.parametrize("because", ["all jobs are managed", "the namespace has a default queue"])
async def test_a_prepare_that_a_queue_holds_is_shown_as_queued_and_can_name_its_queue(tell, cluster, because):
    queue = Queue.make(cluster, QUEUE, gpu="2")
    if because == "all jobs are managed":
        cluster.patch("Namespace", cluster.namespace, {"metadata": {"labels": MANAGED}})
        helpers = Queue.make(cluster, "helpers", cpu="0", memory="0")
        story = tell(helperPods={"labels": {QUEUE_LABEL: "helpers"}})
    else:
        helpers = Queue.make(cluster, "default", cpu="0", memory="0")
        # Kueue's own defaulting looks at what it has heard of
        eventually(lambda: queue.is_active() and helpers.is_active(), "both queues are active", timeout=60)
        story = tell()
    await story.child("Job", "run-p0")
    assert is_suspended(cluster, "run-p0", "Job")
    await story.settle()
    assert (story.status["phase"], story.condition("Suspended")["reason"]) == ("Queued", "Queued")
    assert "Job run-p0" in story.condition("Suspended")["message"]
    story.advance(TEN_DAYS)
    assert (await story.settle()).after_seconds is None
    assert story.condition("Stuck") == {}
    helpers.give(cpu="1", memory="1Gi")
    is_admitted(cluster, "run-p0", "Job")
    await is_made(story)
    await runs(story)
