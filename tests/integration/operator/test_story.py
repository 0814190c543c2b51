"""What happens to a run, told against a real API server: the operator is real, the rest of the cluster is played."""

from __future__ import annotations

import pytest

from support.manifests import make_claim, make_sweeprun, make_template
from support.passes import Passes
from support.reports import CHECKPOINT, DIGEST, make_report
from sweeprun_operator.cluster.kubernetes_gateway import KubernetesGateway
from sweeprun_protocol.reasons import BlockedReason, Outcome, StartReason

NAME = "run"


def report(number, outcome, **more):
    return make_report(number, outcome, config_digest=DIGEST, **more)


FRESH = report(0, Outcome.FRESH, reason=StartReason.FIRST_START, epoch=1)
RESUME = report(1, Outcome.RESUME, reason=StartReason.NEWEST_CHECKPOINT, epoch=2, checkpoint=CHECKPOINT, last_step=540)
COMPLETED = report(2, Outcome.COMPLETED, epoch=3, step=1000, checkpoint=CHECKPOINT, last_step=1000)


@pytest.fixture
def claim(cluster):
    cluster.create(make_claim())


@pytest.fixture
def tell(gateway, decisions, cluster, claim):
    def begin(*, dies_after=(), through=gateway, **spec):
        cluster.create(make_sweeprun(NAME, **spec))
        return Passes(through, decisions, cluster, NAME, dies_after=dies_after)

    return begin


async def begins(story):
    await story.trains(FRESH)


async def is_evicted(story):
    """The worker is evicted; training-operator fails the job; all pods end in time."""
    story.cluster.evict("run-a0-worker-0")
    story.played.job_status("run-a0", "Failed")
    await story.until(lambda: story.cluster.get("PyTorchJob", "run-a0") is None, "attempt 0 is taken down")
    story.played.collect_garbage()


async def resumes(story):
    await story.trains(RESUME, attempt=1)


async def completes(story):
    for pod in ("run-a1-master-0", "run-a1-worker-0"):
        story.played.end_pod(pod, 0)
    story.played.job_status("run-a1", "Succeeded")
    await story.until(lambda: story.cluster.get("PyTorchJob", "run-a1") is None, "attempt 1 is taken down")
    story.played.collect_garbage()
    await story.child("Job", "run-p2")
    story.played.answer("run-p2", COMPLETED)
    await story.until(lambda: story.condition("Complete").get("status") == "True", "the run is complete")


async def whole(story):
    await begins(story)
    await is_evicted(story)
    await resumes(story)
    await completes(story)


def environment(job, replica="Worker"):
    containers = job["spec"]["pytorchReplicaSpecs"][replica]["template"]["spec"]["containers"]
    (container,) = [one for one in containers if one["name"] == "pytorch"]
    return {one["name"]: one.get("value") for one in container["env"]}


def outcome(story):
    """What is the same however often the operator died."""
    status = story.status
    history = [
        {key: attempt.get(key) for key in ("attempt", "epoch", "outcome", "cause", "kind", "fromStep")}
        for attempt in status["history"]
    ]
    kept = {key: status.get(key) for key in ("phase", "runId", "counts", "checkpoint", "result", "savings")}
    kept["checkpoint"] = {**kept["checkpoint"], "verifiedTime": None}
    kept["savings"] = {**kept["savings"], "gpuSecondsKept": None}
    return {**kept, "history": history}


async def test_an_evicted_run_resumes_and_completes(tell):
    story = tell()
    await whole(story)
    assert story.created() == ["run-p0", "run-a0", "run-p1", "run-a1", "run-p2"]
    status = story.status
    assert status["runId"] == "digits-lr.r.1"
    assert status["counts"]["attempts"] == 2
    assert status["counts"]["resumes"] == 1
    assert status["counts"]["disruptions"] == 1
    assert status["counts"]["failures"] == 0
    assert [attempt["cause"] for attempt in status["history"]] == ["EvictionAPI", "Completed"]
    assert status["result"]["step"] == 1000


async def test_events_tell_the_story_in_order_and_once_each(tell):
    story = tell()
    await whole(story)
    events = sorted(story.cluster.events_of(NAME), key=lambda event: int(event["metadata"]["resourceVersion"]))
    told = [(event["type"], event["reason"], event["message"]) for event in events]
    told = [one for one in told if one[1] != "Stuck"]  # of drains: the node that the pods are on does not exist here
    assert [reason for _, reason, _ in told] == [
        "Started",
        "Running",
        "Interrupted",
        "Resumed",
        "Running",
        "Ended",
        "Completed",
    ]
    assert [reason for kind, reason, _ in told if kind == "Warning"] == ["Interrupted"]
    texts = [message for _, _, message in told]
    assert "attempt 0 ended: EvictionAPI" in texts[2]
    assert "attempt 1 of run digits-lr.r.1 goes on from step 500" in texts[3]
    assert [text for text in texts if texts.count(text) > 1] == []


async def test_the_resumed_attempt_is_told_where_to_go_on(tell):
    story = tell(tracking={"wandb": {"project": "digits"}})
    await begins(story)
    first = environment(story.cluster.get("PyTorchJob", "run-a0"))
    assert (first["SWEEPRUN_EPOCH"], first["SWEEPRUN_ATTEMPT"]) == ("1", "0")
    assert "SWEEPRUN_RESUME_FROM" not in first
    await is_evicted(story)
    await resumes(story)
    for replica in ("Master", "Worker"):
        second = environment(story.cluster.get("PyTorchJob", "run-a1"), replica)
        assert (second["SWEEPRUN_EPOCH"], second["SWEEPRUN_ATTEMPT"]) == ("2", "1")
        assert second["SWEEPRUN_RUN_ID"] == first["SWEEPRUN_RUN_ID"] == "digits-lr.r.1"
        assert second["SWEEPRUN_RESUME_FROM"].endswith("digits-lr.r.1/" + CHECKPOINT.path)
        assert second["SWEEPRUN_RESUME_DIGEST"] == DIGEST
        assert second["SWEEPRUN_RESUME_STEP"] == "500"
        assert second["WANDB_RUN_ID"] == "digits-lr.r.1"


async def test_the_next_prepare_waits_until_every_pod_is_gone(tell):
    story = tell()
    await begins(story)
    story.cluster.evict("run-a0-worker-0")
    story.played.job_status("run-a0", "Failed")
    await story.until(lambda: story.cluster.get("PyTorchJob", "run-a0") is None, "attempt 0 is taken down")
    story.played.vanish("run-a0-worker-0")
    await story.settle()
    assert story.status["current"]["state"] == "Draining"
    assert story.cluster.get("Job", "run-p1") is None
    story.played.vanish("run-a0-master-0")
    await story.child("Job", "run-p1")


WRITES = 30
"""At least as many as the whole story has; a death that comes too late is no death, and the test says so."""
APART = 15


@pytest.mark.parametrize("first", range(1, APART + 1))
async def test_an_operator_killed_after_any_write_changes_nothing(tell, first, undisturbed):
    """Two deaths to a story, so that all stories together die after each write once."""
    deaths = [after for after in (first, first + APART) if after <= undisturbed["writes"]]
    story = tell(dies_after=deaths)
    await whole(story)
    assert outcome(story) == undisturbed["outcome"]
    assert story.deaths == len(deaths)
    made = story.created()
    assert sorted(made) == sorted(set(made)) == sorted(undisturbed["created"])


@pytest.fixture(scope="session")
def remembered():
    return {}


@pytest.fixture
async def undisturbed(remembered, control_plane, decisions):
    """How the story ends where nobody dies; told once."""
    if not remembered:
        cluster = control_plane.new_namespace()
        cluster.create(make_claim())
        cluster.create(make_sweeprun(NAME))
        async with await KubernetesGateway.connect(str(control_plane.kubeconfig)) as gateway:
            story = Passes(gateway, decisions, cluster, NAME)
            await whole(story)
        remembered.update(outcome=outcome(story), created=story.created(), writes=story.gateway.counted)
    assert remembered["writes"] <= WRITES, "more writes than deaths are tried"
    return remembered


async def test_a_status_written_by_another_in_between_is_read_again(tell, gateway, cluster):
    story = tell(through=Meddled(gateway, cluster))
    await whole(story)
    assert story.gateway.meddled > 3
    assert story.created() == ["run-p0", "run-a0", "run-p1", "run-a1", "run-p2"]


class Meddled:
    """Before every second status write somebody else has changed the run: the write is refused with a conflict."""

    def __init__(self, gateway, cluster):
        self._gateway = gateway
        self._cluster = cluster
        self._turn = False
        self.meddled = 0

    def __getattr__(self, name):
        return getattr(self._gateway, name)

    async def replace_status(self, raw):
        self._turn = not self._turn
        if self._turn:
            self.meddled += 1
            self._cluster.patch("SweepRun", NAME, {"metadata": {"annotations": {"meddled": str(self.meddled)}}})
        return await self._gateway.replace_status(raw)


async def test_a_template_that_the_server_refuses_is_told_in_its_words(tell, cluster):
    template = make_template()
    template["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = "many"
    story = tell(template=template)
    await story.settle()
    accepted = story.condition("Accepted")
    assert accepted["status"] == "False"
    assert "replicas" in accepted["message"]
    assert cluster.list("Job") == []


async def test_a_template_that_was_corrected_is_accepted(tell, cluster):
    template = make_template()
    template["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = "many"
    story = tell(template=template)
    await story.settle()
    cluster.patch("SweepRun", NAME, {"spec": {"template": make_template()}})
    await story.child("Job", "run-p0")
    assert story.condition("Accepted")["status"] == "True"


async def test_a_name_that_belongs_to_somebody_else_is_waited_for(tell, cluster):
    container = {"name": "c", "image": "none"}
    pod = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    cluster.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "run-p0"}, "spec": {"template": pod}})
    story = tell()
    for _ in range(6):
        last = await story.one()
    assert last.failed
    assert story.created() == []
    assert "NameTaken" in [event["reason"] for event in cluster.events_of(NAME)]
    cluster.delete("Job", "run-p0")
    ours = await story.child("Job", "run-p0")
    assert ours["metadata"]["ownerReferences"][0]["kind"] == "SweepRun"


async def test_a_suspended_run_gives_up_its_pods_and_goes_on_later(tell, cluster):
    story = tell()
    await begins(story)
    cluster.patch("SweepRun", NAME, {"spec": {"suspend": True}})
    await story.until(lambda: cluster.get("PyTorchJob", "run-a0") is None, "attempt 0 is taken down")
    story.played.collect_garbage()
    await story.settle()
    assert story.condition("Suspended")["status"] == "True"
    assert cluster.get("Job", "run-p1") is None
    cluster.patch("SweepRun", NAME, {"spec": {"suspend": False}})
    await resumes(story)
    assert story.status["counts"]["disruptions"] == 0


async def test_a_prepare_that_gave_no_answer_is_asked_again(tell, cluster):
    story = tell()
    await story.child("Job", "run-p0")
    story.played.fail_helper("run-p0", 137, reason="OOMKilled")
    await story.child("Job", "run-p1")
    assert cluster.get("PyTorchJob", "run-a0") is None


async def test_a_blocked_run_tries_again_and_says_why(tell, cluster):
    story = tell()
    await story.child("Job", "run-p0")
    blocked = report(0, Outcome.BLOCKED, blocked=BlockedReason.IO_ERROR, run_id=None)
    story.played.answer("run-p0", blocked)
    await story.child("Job", "run-p1")
    assert cluster.get("PyTorchJob", "run-a0") is None


async def test_a_deleted_run_is_left_to_the_garbage_collector(tell, cluster):
    story = tell()
    await begins(story)
    owners = [one["metadata"]["ownerReferences"][0]["uid"] for one in cluster.list("PyTorchJob")]
    assert owners == [cluster.get("SweepRun", NAME)["metadata"]["uid"]]
    cluster.delete("SweepRun", NAME)
    writes = len(story.gateway.writes)
    assert (await story.one()).gone
    assert len(story.gateway.writes) == writes
