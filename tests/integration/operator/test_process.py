"""The whole process against a real API server: events ring, resync heals, one process works, and it leaves in time."""

from __future__ import annotations

import asyncio

import kopf
import pytest

from support.objects import run
from support.operator_process import QUICK, running, settings, until
from sweeprun_operator.core.plan import Plan
from sweeprun_operator.handlers.process import LeaseLostError, Process

UNIQUE = "sweeprun.dev/uid"


class Counting:
    """Decisions that write into the status how many children they saw."""

    def __init__(self, mark=""):
        self.mark = mark
        self.seen = []
        self.departed = []

    def saw(self, name, label):
        return any(run.name == name and label in run.labels for run in self.seen)

    def decide(self, seen):
        self.seen.append(seen.run.metadata)
        self.departed += [pod.disruption for pod in seen.departed]
        return Plan(status=seen.run.status.model_copy(update={"phase": f"{self.mark}{len(seen.pods)} pods"}))

    def proof(self, run):
        raise ValueError("no workload in these tests")


@pytest.fixture
def make_run(cluster):
    def make(name="run"):
        manifest = run(name)
        manifest["metadata"] = {"name": name}
        return cluster.create(manifest)

    return make


@pytest.fixture
def make_pod(cluster):
    def make(name, owner):
        labels = {
            UNIQUE: owner["metadata"]["uid"],
            "sweeprun.dev/name": owner["metadata"]["name"],
            "sweeprun.dev/role": "attempt",
            "sweeprun.dev/number": "0",
        }
        container = {"name": "pytorch", "image": "none"}
        meta = {"name": name, "labels": labels}
        return cluster.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}
        )

    return make


async def phase_becomes(cluster, phase, name="run"):
    await until(lambda: cluster.get("SweepRun", name).get("status", {}).get("phase") == phase)


async def ready(process):
    await until(lambda: process.health.unready() is None)


async def test_events_of_runs_and_of_their_children_ring(gateway, cluster, kubeconfig, make_run, make_pod):
    owner = make_run("before")
    async with running(gateway, Counting(), settings(kubeconfig, cluster.namespace)):
        await phase_becomes(cluster, "0 pods", "before")
        make_pod("p1", owner)
        await phase_becomes(cluster, "1 pods", "before")
        make_run("after")
        await phase_becomes(cluster, "0 pods", "after")
        cluster.delete("Pod", "p1", grace=0)
        await phase_becomes(cluster, "0 pods", "before")


async def test_a_disrupted_pod_that_is_gone_leaves_its_reason(gateway, cluster, kubeconfig, make_run, make_pod):
    owner = make_run()
    decisions = Counting()
    async with running(gateway, decisions, settings(kubeconfig, cluster.namespace)) as process:
        await ready(process)
        make_pod("p1", owner)
        await phase_becomes(cluster, "1 pods")
        mark = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
        cluster.patch("Pod", "p1", {"status": {"conditions": [mark]}}, subresource="/status")
        cluster.delete("Pod", "p1", grace=0)
        await phase_becomes(cluster, "0 pods")
        await until(lambda: "DeletionByPodGC" in decisions.departed)


async def test_pods_of_others_do_not_ring(gateway, cluster, kubeconfig, make_run):
    make_run()
    decisions = Counting()
    async with running(gateway, decisions, settings(kubeconfig, cluster.namespace)) as process:
        await phase_becomes(cluster, "0 pods")
        await ready(process)
        make_run("last")
        await phase_becomes(cluster, "0 pods", "last")
        cluster.patch("SweepRun", "run", {"metadata": {"labels": {"x": "y"}}})
        await until(lambda: decisions.saw("run", "x"))
        decisions.seen.clear()
        container = {"name": "c", "image": "none"}
        meta = {"name": "alien", "labels": {"sweeprun.dev/name": "run"}}
        cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}})
        cluster.patch("SweepRun", "last", {"metadata": {"labels": {"x": "y"}}})
        await until(lambda: decisions.saw("last", "x"))
        assert not [run for run in decisions.seen if run.name == "run"]


async def test_a_deletion_that_no_watch_told_of_is_healed_by_resync(
    gateway, cluster, kubeconfig, make_run, make_pod, monkeypatch
):
    monkeypatch.setattr("sweeprun_operator.handlers.doorbell.Doorbell.start", lambda self: None)
    owner = make_run()
    make_pod("p1", owner)
    async with running(gateway, Counting(), settings(kubeconfig, cluster.namespace, resync_seconds=0.5)):
        await phase_becomes(cluster, "1 pods")
        cluster.delete("Pod", "p1", grace=0)
        await phase_becomes(cluster, "0 pods")


async def test_watches_that_broke_are_hung_up_again(gateway, cluster, kubeconfig, make_run, monkeypatch):
    real, broken = kopf.operator, []

    async def breaking(**arguments):
        if not broken:
            broken.append(True)
            raise RuntimeError("as kopf does on an ERROR event")
        await real(**arguments)

    monkeypatch.setattr(kopf, "operator", breaking)
    async with running(gateway, Counting(), settings(kubeconfig, cluster.namespace)) as process:
        await ready(process)
        make_run()
        await phase_becomes(cluster, "0 pods")
    assert broken


async def test_a_second_process_waits_and_follows_at_once_when_the_first_leaves(gateway, cluster, kubeconfig, make_run):
    make_run()
    first = running(gateway, Counting("first: "), settings(kubeconfig, cluster.namespace))
    await first.__aenter__()
    await phase_becomes(cluster, "first: 0 pods")
    async with running(gateway, Counting("second: "), settings(kubeconfig, cluster.namespace)) as second:
        await asyncio.sleep(0.3)
        assert second.health.unready() == "waiting for the Lease"
        assert second.health.trouble() is None
        await first.__aexit__(None, None, None)
        await phase_becomes(cluster, "second: 0 pods")


async def test_a_process_that_lost_its_lease_leaves(gateway, cluster, kubeconfig):
    process = Process(gateway, Counting(), settings(kubeconfig, cluster.namespace), lease_times=QUICK)
    task = asyncio.create_task(process.run(asyncio.Event()))
    await ready(process)
    cluster.patch("Lease", "sweeprun-operator", {"spec": {"holderIdentity": "another"}})
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(task, 10)
    assert (await gateway.get_lease(cluster.namespace, "sweeprun-operator"))["spec"]["holderIdentity"] == "another"


async def test_it_leaves_within_seconds(gateway, cluster, kubeconfig, make_run):
    make_run()
    loop = asyncio.get_running_loop()
    async with running(gateway, Counting(), settings(kubeconfig, cluster.namespace)):
        await phase_becomes(cluster, "0 pods")
        asked = loop.time()
    assert loop.time() - asked < 5


async def test_metrics_are_served(gateway, cluster, kubeconfig, make_run):
    make_run()
    async with running(gateway, Counting(), settings(kubeconfig, cluster.namespace)) as process:
        await phase_becomes(cluster, "0 pods")
        await ready(process)
        assert process.metrics.registry.get_sample_value("sweeprun_leading") == 1
        assert process.metrics.registry.get_sample_value("sweeprun_reconcile_seconds_count") >= 1
