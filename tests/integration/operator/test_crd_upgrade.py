"""The CRD is upgraded under runs that run: none is disturbed, and the watches hear what happens afterwards."""

from __future__ import annotations

import asyncio
import copy
import json

import pytest
import yaml

from support.cluster import RefusedError, eventually
from support.control_plane.definitions import CRDS, ROOT
from support.manifests import make_claim, make_sweeprun
from support.operator_process import running, settings, until
from support.passes import Passes

NAME = "run"
DEFINITION = f"{CRDS}/sweepruns.sweeprun.dev"


@pytest.fixture
async def story(gateway, decisions, cluster):
    """Of a run that trains."""
    cluster.create(make_claim())
    cluster.create(make_sweeprun(NAME))
    made = Passes(gateway, decisions, cluster, NAME)
    await made.trains()
    await made.settle()
    return made


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


async def test_an_upgrade_of_the_crd_disturbs_no_run_and_no_watch(
    gateway, decisions, cluster, kubeconfig, story, upgrade
):
    async with running(gateway, decisions, settings(kubeconfig, cluster.namespace)) as process:
        await until(lambda: process.health.unready() is None, 30)
        await until(lambda: passes(process) >= 1 and len(process.queue) == 0, 30)
        before = cluster.get("SweepRun", NAME)["status"], cluster.get("PyTorchJob", "run-a0")["metadata"]["uid"]
        await asyncio.to_thread(upgrade)
        await until(lambda: "Later" in columns(cluster), 30)
        await asyncio.sleep(1)
        after = cluster.get("SweepRun", NAME)["status"], cluster.get("PyTorchJob", "run-a0")["metadata"]["uid"]
        assert after == before
        assert process.health.trouble() is None
        # what happens from here on is told by watches: no list is due for an hour
        cluster.patch("SweepRun", NAME, {"spec": {"suspend": True}})
        await until(lambda: cluster.get("PyTorchJob", "run-a0") is None, 30)


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
