"""What a cluster's admin does under runs that run: a status restored from a backup, a CRD that is upgraded."""

from __future__ import annotations

import asyncio
import copy
import json

import pytest
import yaml

from support.cluster import RefusedError, eventually
from support.control_plane.definitions import CRDS, ROOT
from support.manifests import make_sweeprun
from support.operator_process import running, settings
from support.passes import Passes
from sweeprun_protocol.prepare import PrepareReport
from sweeprun_protocol.reasons import Format, Outcome, StartReason
from sweeprun_protocol.records import CheckpointRef

NAME = "run"
DIGEST = "sha256:" + "ab" * 32
CHECKPOINT = CheckpointRef(
    step=500, epoch=1, path="checkpoints/step-000000500.e1", digest=DIGEST, format=Format.SWEEPRUN
)
DEFINITION = f"{CRDS}/sweepruns.sweeprun.dev"


def report(number, outcome, **more):
    told = {"run_id": "digits-lr.r.1", "volume_id": "volume-1", **more}
    return PrepareReport(prepare=number, outcome=outcome, message="said by the test", **told)


@pytest.fixture
async def story(gateway, decisions, cluster):
    """Of a run that trains."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    cluster.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "sweeps"}, "spec": spec})
    cluster.create(make_sweeprun(NAME))
    made = Passes(gateway, decisions, cluster, NAME)
    await made.child("Job", "run-p0")
    made.played.answer("run-p0", report(0, Outcome.FRESH, reason=StartReason.FIRST_START, epoch=1))
    await made.child("PyTorchJob", "run-a0")
    made.played.start_attempt("run-a0")
    await made.state("Running")
    await made.settle()
    return made


async def resumes(story, prepare, attempt, epoch):
    await story.child("Job", f"run-p{prepare}")
    more = {"reason": StartReason.NEWEST_CHECKPOINT, "epoch": epoch, "checkpoint": CHECKPOINT, "last_step": 540}
    story.played.answer(f"run-p{prepare}", report(prepare, Outcome.RESUME, **more))
    await story.child("PyTorchJob", f"run-a{attempt}")
    story.played.start_attempt(f"run-a{attempt}")
    await story.state("Running")


def reasons(story):
    return [event["reason"] for event in story.cluster.events_of(NAME)]


# -- the status --------------------------------------------------------------------------------------------------------


async def test_a_status_that_was_lost_is_rebuilt_and_nothing_runs_twice(story):
    story.cluster.patch("SweepRun", NAME, {"status": None}, subresource="/status")
    await story.settle()
    assert "StatusRebuilt" in reasons(story)
    assert story.cluster.get("PyTorchJob", "run-a0") is None
    assert "run-p1" not in story.created(), "its pods are still there"
    story.played.collect_garbage()
    await resumes(story, 1, 1, 2)
    assert story.created() == ["run-p0", "run-a0", "run-p1", "run-a1"]
    assert (story.status["runId"], story.status["checkpoint"]["step"]) == ("digits-lr.r.1", 500)
    assert story.status["current"]["attempt"] == 1


async def test_a_status_that_was_set_back_goes_on_behind_what_is_there(story):
    backup = story.status
    story.cluster.evict("run-a0-worker-0")
    story.played.job_status("run-a0", "Failed")
    await story.state("Draining")
    story.played.collect_garbage()
    await resumes(story, 1, 1, 2)
    story.cluster.patch("SweepRun", NAME, {"status": None}, subresource="/status")
    story.cluster.patch("SweepRun", NAME, {"status": backup}, subresource="/status")
    await story.settle()
    assert "StatusRebuilt" in reasons(story)
    assert "run-p2" not in story.created(), "the pods of attempt 1 are still there"
    story.played.collect_garbage()
    await resumes(story, 2, 2, 3)
    made = story.created()
    assert made == ["run-p0", "run-a0", "run-p1", "run-a1", "run-p2", "run-a2"]
    assert story.status["current"]["epoch"] == 3


async def test_a_status_that_nobody_touched_is_not_rebuilt(story):
    await story.settle()
    assert "StatusRebuilt" not in reasons(story)
    assert story.created() == ["run-p0", "run-a0"]


# -- the CRD -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def upgrade(control_plane):
    """Applies the CRD as a later version may have it; the one of the repository comes back afterwards."""
    admin = control_plane.cluster()
    (path,) = (ROOT / "crds").glob("*.yaml")
    ours = yaml.safe_load(path.read_text())["spec"]

    def apply(spec):
        content = {"Content-Type": "application/merge-patch+json"}
        admin.call("PATCH", DEFINITION, data=json.dumps({"spec": spec}), headers=content)

    def later():
        spec = copy.deepcopy(ours)
        (version,) = spec["versions"]
        properties = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        properties["later"] = {"type": "string", "description": "Of a later version."}
        properties["sweepName"]["description"] = "Told in other words."
        version["additionalPrinterColumns"].append({"name": "Later", "type": "string", "jsonPath": ".spec.later"})
        apply(spec)

    yield later
    apply(ours)
    eventually(lambda: columns(admin) and "Later" not in columns(admin), "the CRD is as it was", timeout=30)


async def until(look, seconds=30):
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(look):  # noqa: ASYNC110  what is waited for is on a server
            await asyncio.sleep(0.05)


async def test_an_upgrade_of_the_crd_disturbs_no_run_and_no_watch(
    gateway, decisions, cluster, kubeconfig, story, upgrade
):
    async with running(gateway, decisions, settings(kubeconfig, cluster.namespace)) as process:
        await until(lambda: process.health.unready() is None)
        await until(lambda: passes(process) >= 1 and len(process.queue) == 0)
        before = cluster.get("SweepRun", NAME)["status"], cluster.get("PyTorchJob", "run-a0")["metadata"]["uid"]
        await asyncio.to_thread(upgrade)
        await until(lambda: "Later" in columns(cluster))
        await asyncio.sleep(1)
        after = cluster.get("SweepRun", NAME)["status"], cluster.get("PyTorchJob", "run-a0")["metadata"]["uid"]
        assert after == before
        assert process.health.trouble() is None
        # what happens from here on is told by watches: no list is due for an hour
        cluster.patch("SweepRun", NAME, {"spec": {"suspend": True}})
        await until(lambda: cluster.get("PyTorchJob", "run-a0") is None)


def passes(process):
    return process.metrics.registry.get_sample_value("sweeprun_reconcile_seconds_count")


def columns(cluster):
    """As the API server serves them now; none while it makes the kind's storage anew."""
    path = f"/apis/sweeprun.dev/v1alpha1/namespaces/{cluster.namespace}/sweepruns"
    try:
        table = cluster.call("GET", path, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    except RefusedError as refused:
        if refused.code == 429:
            return []
        raise
    return [column["name"] for column in table["columnDefinitions"]]
