"""What only the operator can judge, since the template is opaque to the API server: nothing is made, and the condition
Accepted says why. With the policies of the chart in force; each attack has a twin that gets its prepare Job."""

from __future__ import annotations

import pytest

from support.cluster import RefusedError
from support.manifests import make_claim, make_container, make_pod, make_sweeprun, make_template, with_value
from support.passes import Passes
from sweeprun_operator.builders.images import HelperImages
from sweeprun_operator.builders.manifests import Manifests
from sweeprun_operator.cluster.kubernetes_gateway import KubernetesGateway
from sweeprun_operator.controller.decisions import BoundDecisions

from .conftest import dry_create


@pytest.fixture
async def tell(installed):
    installed.team.ensure(make_claim())
    decisions = BoundDecisions(Manifests(HelperImages(image="sweeprun/operator:test")))
    async with await KubernetesGateway.connect(str(installed.plane.kubeconfig)) as gateway:

        def begin(name, manifest):
            installed.team.create({**manifest, "metadata": {"name": name}})
            return Passes(gateway, decisions, installed.team, name)

        yield begin


def metadata(**fields):
    return make_sweeprun(template=make_template() | {"metadata": fields})


def env(name, value="1"):
    return make_sweeprun(template=make_template(pod=make_pod(make_container(env=[{"name": name, "value": value}]))))


OPAQUE = [
    ("namespace", metadata(namespace="kube-system"), metadata(labels={"team": "a"}), "TemplateInvalid"),
    ("owner", metadata(ownerReferences=[{"kind": "Node", "name": "n"}]), metadata(annotations={}), "TemplateInvalid"),
    ("finalizer", metadata(finalizers=["a/b"]), metadata(), "TemplateInvalid"),
    ("name", metadata(name="another-a0"), metadata(labels={}), "TemplateInvalid"),
    ("fence", env("SWEEPRUN_EPOCH", "99"), env("EPOCH", "99"), "EnvironmentTaken"),
    ("tracker", env("WANDB_RUN_ID"), env("WANDB_PROJECT"), "EnvironmentTaken"),
    ("huge", env("BLOB", "x" * (300 << 10)), env("BLOB", "x" * (100 << 10)), "TooLarge"),
]


@pytest.mark.parametrize(("name", "bad", "good", "reason"), OPAQUE, ids=[one[0] for one in OPAQUE])
async def test_it_is_not_accepted_and_nothing_is_made(name, bad, good, reason, tell, installed):
    refused, accepted = tell(f"{name}-bad", bad), tell(f"{name}-good", good)
    await refused.settle()
    assert refused.condition("Accepted")["reason"] == reason
    assert refused.created() == []
    await accepted.child("Job", f"{name}-good-p0")


async def test_the_job_of_somebody_else_is_neither_taken_nor_deleted(tell, installed):
    """A name that a child needs, under an owner that says it is ours and is not."""
    owner = {"apiVersion": "sweeprun.dev/v1alpha1", "kind": "SweepRun", "name": "victim", "uid": "not-this-one"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "victim-p0", "ownerReferences": [owner]},
        "spec": {"template": make_pod(restartPolicy="Never")},
    }
    theirs = installed.team.create(job)["metadata"]["uid"]
    story = tell("victim", make_sweeprun())
    for _ in range(4):
        await story.one()
    assert installed.team.get("Job", "victim-p0")["metadata"]["uid"] == theirs
    assert "NameTaken" in [event["reason"] for event in installed.team.events_of("victim")]
    installed.team.delete("Job", "victim-p0")
    await story.until(lambda: installed.team.get("Job", "victim-p0"), "its own Job is made")
    assert installed.team.get("Job", "victim-p0")["metadata"]["uid"] != theirs


ESCAPES = [
    ("spec.storage.persistentVolumeClaim.subPath", "../../etc", "experiments/a"),
    ("spec.storage.persistentVolumeClaim.claimName", "../other", "sweeps"),
    ("spec.storage.mountPath", "/data/../etc", "/data/sweeps"),
    ("spec.storage.runDirectory", "../{runId}", "runs/{runId}"),
    ("spec.checkpoint.directory", "../../other", "out/checkpoints"),
    ("spec.checkpoint.directory", "claims", "claim"),
    ("spec.configFileName", "../config.yaml", "config.yaml"),
    ("spec.runId", "../../victim", "victim.1"),
    ("spec.sweepName", "a/b", "a-b"),
    ("spec.entrypoint.pythonPath", "python; reboot", "/opt/conda/bin/python"),
]


@pytest.mark.parametrize(("path", "bad", "good"), ESCAPES, ids=[f"{one[0]}={one[1]}" for one in ESCAPES])
def test_a_path_that_leads_elsewhere_is_refused_at_apply(path, bad, good, installed):
    dry_create(installed.team, with_value(make_sweeprun(), path, good))
    with pytest.raises(RefusedError) as refused:
        dry_create(installed.team, with_value(make_sweeprun(), path, bad))
    assert refused.value.code == 422
    assert path in refused.value.message
