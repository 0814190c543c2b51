"""Pods of a node that is gone for good, on a real API server: deleted by force where the user asks for it."""

from __future__ import annotations

import json

import pytest

from support.manifests import make_claim, make_run, make_sweeprun
from support.observations import NOW
from support.passes import Passes
from sweeprun_operator.api.status import AvoidedNode
from sweeprun_operator.builders.affinity import avoiding
from sweeprun_operator.cluster.gateway import ConflictError
from sweeprun_protocol.prepare import REQUEST_ENV, PrepareReport
from sweeprun_protocol.reasons import Outcome, StartReason

NAME, LOST = "run", "run-a0-worker-0"
FINALIZER = "test.sweeprun.dev/held"
FRESH = PrepareReport(
    prepare=0,
    outcome=Outcome.FRESH,
    message="said by the test",
    reason=StartReason.FIRST_START,
    run_id="digits-lr.r.1",
    volume_id="volume-1",
    epoch=1,
)


@pytest.fixture
def begin(cluster, gateway, decisions):
    """A run whose worker is on a node that no longer exists, in the middle of its drain."""

    async def played(*, policy="ForceDelete", dies_after=()):
        cluster.create(make_claim())
        cluster.create(make_sweeprun(NAME, unreachable={"tolerationSeconds": 60, "policy": policy}))
        story = Passes(gateway, decisions, cluster, NAME, dies_after=dies_after)
        await story.trains()
        cluster.patch("Pod", LOST, {"metadata": {"finalizers": [FINALIZER]}})
        cluster.evict(LOST)
        story.played.job_status("run-a0", "Failed")
        await story.until(lambda: cluster.get("PyTorchJob", "run-a0") is None, "attempt 0 is taken down")
        story.played.vanish("run-a0-master-0")
        return story

    return played


def is_forced(cluster):
    return cluster.get("Pod", LOST)["metadata"]["deletionGracePeriodSeconds"] == 0


def asked(job):
    (variable,) = [
        item for item in job["spec"]["template"]["spec"]["containers"][0]["env"] if item["name"] == REQUEST_ENV
    ]
    return json.loads(variable["value"].replace("$$", "$"))


@pytest.mark.parametrize("dies_after", [(), (9,), (10,), (11,)], ids=str)
async def test_the_drain_ends_by_force_and_prepare_is_told(begin, cluster, dies_after):
    story = await begin(dies_after=dies_after)
    assert not is_forced(cluster)
    await story.until(lambda: is_forced(cluster), "the pod is deleted by force")
    assert story.status["current"]["state"] == "Draining", "its object is still there"
    cluster.patch("Pod", LOST, {"metadata": {"finalizers": None}})
    assert cluster.get("Pod", LOST) is None
    assert asked(await story.child("Job", "run-p1"))["drainForced"] is True
    assert story.deaths == len(dies_after)
    (entry,) = story.status["history"]
    assert (entry["cause"], entry["forced"]["pods"]) == ("EvictionAPI", [LOST])
    assert entry["forced"]["nodes"] == ["node-1"]
    (seen,) = [pod for pod in entry["pods"] if pod["name"] == LOST]
    assert (seen["disruption"], seen["deleting"]) == ("EvictionByEvictionAPI", True)
    if not dies_after:
        assert [event["reason"] for event in cluster.events_of(NAME)].count("ForceDeleted") == 1


async def test_twin_without_the_policy_it_is_waited_for(begin, cluster):
    story = await begin(policy="Wait")
    for _ in range(20):
        coming = await story.settle()
        story.advance(coming.after_seconds + 0.01)
    assert not is_forced(cluster)
    assert story.condition("Stuck")["reason"] == "NodeUnreachable"
    cluster.patch("Pod", LOST, {"metadata": {"finalizers": None}})
    story.played.vanish(LOST)
    assert asked(await story.child("Job", "run-p1"))["drainForced"] is False


async def test_another_pod_of_that_name_is_not_deleted(begin, cluster, gateway, namespace):
    await begin(policy="Wait")
    with pytest.raises(ConflictError):
        await gateway.delete("Pod", namespace, LOST, uid="another", force=True)
    assert not is_forced(cluster)


async def test_the_api_server_takes_the_wish_to_avoid_nodes(cluster):
    run = make_run()
    nodes = [AvoidedNode(node=name, losses=2, reason="attempt 0: Taint", until=NOW) for name in ("node-1", "node-2")]
    run = run.model_copy(update={"status": run.status.model_copy(update={"avoided_nodes": nodes})})
    spec = {"containers": [{"name": "main", "image": "none"}], **avoiding(run, None, "affinity")}
    made = cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "wish"}, "spec": spec})
    assert made["spec"]["affinity"] == spec["affinity"]
