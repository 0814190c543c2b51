"""The chart's roles are enough for everything that the operator calls, and end where its namespaces end."""

from __future__ import annotations

import pytest

from support.cluster import PATHS, Cluster
from support.cluster import RefusedError as ClusterRefusedError
from support.objects import run
from support.operator_process import running, settings, until
from support.rights import kubeconfig_of_operator
from sweeprun_operator.cluster.gateway import RefusedError
from sweeprun_operator.cluster.kubernetes_gateway import KubernetesGateway
from sweeprun_operator.core.plan import ChildKind, Create, Delete, DeleteRun, Event, EventType, Plan
from sweeprun_protocol.keys import NAME_LABEL, NUMBER_LABEL, ROLE_LABEL, UID_LABEL


@pytest.fixture(params=["namespaces", "everywhere"])
def account(request, cluster, tmp_path, monkeypatch):
    """A kubeconfig of the operator's own account, in both modes of the chart, and the watches use it too."""
    made = kubeconfig_of_operator(cluster, tmp_path, everywhere=request.param == "everywhere")
    monkeypatch.setenv("KUBECONFIG", str(made))
    return made


@pytest.fixture
async def limited(account):
    async with await KubernetesGateway.connect(str(account)) as made:
        yield made


def child(owner, api, kind, name, spec):
    meta = owner.metadata
    reference = {"apiVersion": "sweeprun.dev/v1alpha1", "kind": "SweepRun", "name": meta.name, "uid": meta.uid}
    labels = {UID_LABEL: meta.uid, NAME_LABEL: meta.name, ROLE_LABEL: "prepare", NUMBER_LABEL: "0"}
    owners = [{**reference, "controller": True, "blockOwnerDeletion": True}]
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "labels": labels, "ownerReferences": owners},
        "spec": spec,
    }


def job(owner):
    pod = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}}
    return child(owner, "batch/v1", "Job", f"{owner.metadata.name}-p0", {"template": pod})


def pytorchjob(owner):
    container = {"name": "pytorch", "image": "none"}
    replicas = {"Master": {"replicas": 1, "template": {"spec": {"containers": [container]}}}}
    return child(owner, "kubeflow.org/v1", "PyTorchJob", f"{owner.metadata.name}-a0", {"pytorchReplicaSpecs": replicas})


class Everything:
    """Makes one of each child, deletes them, then deletes the run: every call that the operator can make."""

    def decide(self, seen):
        owner = seen.run
        if not owner.status.observed_generation:
            status = owner.status.model_copy(update={"observed_generation": 1})
            event = Event(EventType.NORMAL, "Begun", "it begins")
            made = (Create(ChildKind.JOB, job(owner)), Create(ChildKind.PYTORCHJOB, pytorchjob(owner)))
            return Plan(status=status, actions=made * 2, events=(event,), requeue_seconds=0)
        jobs = [Delete(ChildKind.JOB, one.name, one.uid) for one in seen.jobs]
        return Plan(actions=(*jobs, DeleteRun(owner.metadata.uid)))

    def proof(self, run):
        return {**pytorchjob(run), "metadata": {"name": f"{run.metadata.name}-a0"}}


async def test_the_charts_rights_suffice(cluster, account, limited, caplog):
    manifest = run()
    manifest["metadata"] = {"name": "run"}
    async with running(limited, Everything(), settings(account, cluster.namespace, lease_name="sweeprun")) as process:
        await until(lambda: process.health.unready() is None)
        cluster.create(manifest)
        await until(lambda: cluster.get("SweepRun", "run") is None)
    assert [event["reason"] for event in cluster.events_of("run")] == ["Begun"]
    assert cluster.get("Job", "run-p0") is None
    assert "forbidden" not in caplog.text
    assert "Forbidden" not in caplog.text


async def test_nodes_and_the_clusters_name_may_be_read(limited):
    assert await limited.get_node("none") is None
    assert await limited.cluster_id()


async def test_a_pod_may_be_tried_and_one_without_a_job_deleted(limited, cluster):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "orphan"},
        "spec": {"containers": [{"name": "c", "image": "none"}]},
    }
    await limited.create("Pod", cluster.namespace, pod, dry_run=True)
    assert cluster.list("Pod") == []
    uid = cluster.create(pod)["metadata"]["uid"]
    await limited.delete("Pod", cluster.namespace, "orphan", uid=uid)
    assert cluster.list("Pod") == []


async def test_pods_may_be_deleted_by_force_and_not_read_one_by_one(cluster, limited):
    """Bound to a node that does not exist: nobody would confirm an ordinary deletion."""
    spec = {"nodeName": "gone", "containers": [{"name": "main", "image": "none"}]}
    made = cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lost"}, "spec": spec})
    await limited.delete("Pod", cluster.namespace, "lost", uid=made["metadata"]["uid"], force=True)
    assert cluster.get("Pod", "lost") is None
    with pytest.raises(RefusedError, match="forbidden"):
        await limited.get_child("Pod", cluster.namespace, "lost")


@pytest.mark.parametrize("account", ["everywhere"], indirect=True)
async def test_all_namespaces_may_be_listed_and_watched_where_that_was_chosen(account, limited):
    asked = Cluster.connect(account, namespace="default")
    for kind in ("SweepRun", "PyTorchJob", "Job", "Pod"):
        await limited.list_metadata(kind, None, limit=1, token=None)
        path = PATHS[kind].replace("/namespaces/{namespace}", "")
        watch = {"watch": "true", "timeoutSeconds": "1"}
        assert asked.session.get(asked.url + path, params=watch, timeout=30).status_code == 200


@pytest.mark.parametrize("account", ["everywhere"], indirect=True)
@pytest.mark.parametrize("kind", ["Secret", "ConfigMap", "ServiceAccount"])
def test_what_it_does_not_need_is_closed_even_then(account, kind):
    with pytest.raises(ClusterRefusedError) as refused:
        Cluster.connect(account, namespace="default").list(kind)
    assert refused.value.code == 403


@pytest.mark.parametrize("account", ["namespaces"], indirect=True)
async def test_other_namespaces_are_closed(limited):
    with pytest.raises(RefusedError, match="forbidden"):
        await limited.get_run("default", "any")
    with pytest.raises(RefusedError, match="forbidden"):
        await limited.list_children("Pod", "default", "any")
    with pytest.raises(RefusedError, match="forbidden"):
        await limited.list_metadata("SweepRun", None, limit=1, token=None)
