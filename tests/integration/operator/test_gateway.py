"""The Gateway against a real API server: what its answers become."""

from __future__ import annotations

import socket

import pytest

from support.objects import job as helper_job
from sweeprun_operator.cluster import kubernetes_gateway
from sweeprun_operator.cluster.gateway import (
    AlreadyExistsError,
    ConflictError,
    GatewayError,
    NotFoundError,
    RefusedError,
)
from sweeprun_operator.cluster.kubernetes_gateway import KubernetesGateway

OWNER = "0e6c1b1c-0000-4000-8000-000000000001"


def job(name, uid=OWNER):
    container = {"name": "main", "image": "none"}
    pod = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    manifest = {"metadata": {"name": name, "labels": helper_job(0, uid=uid)["metadata"]["labels"]}}
    return {"apiVersion": "batch/v1", "kind": "Job", **manifest, "spec": {"template": pod}}


def pytorchjob(name, replicas):
    meta = {"name": name, "labels": {"sweeprun.dev/uid": OWNER}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": meta,
        "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": replicas}}},
    }


async def test_children_are_made_found_and_deleted(gateway, namespace):
    made = await gateway.create("Job", namespace, job("a"))
    assert made["metadata"]["uid"]
    assert [one["metadata"]["name"] for one in await gateway.list_children("Job", namespace, OWNER)] == ["a"]
    assert await gateway.list_children("Job", namespace, "another") == []
    assert (await gateway.get_child("Job", namespace, "a"))["metadata"]["uid"] == made["metadata"]["uid"]
    await gateway.delete("Job", namespace, "a", uid=made["metadata"]["uid"])
    assert await gateway.get_child("Job", namespace, "a") is None


async def test_a_name_that_is_taken_is_told_from_a_conflict(gateway, namespace):
    made = await gateway.create("Job", namespace, job("a"))
    with pytest.raises(AlreadyExistsError, match="already exists"):
        await gateway.create("Job", namespace, job("a"))
    with pytest.raises(ConflictError):
        await gateway.delete("Job", namespace, "a", uid="another")
    assert await gateway.get_child("Job", namespace, "a") == await gateway.get_child("Job", namespace, "a")
    assert made["metadata"]["uid"] == (await gateway.get_child("Job", namespace, "a"))["metadata"]["uid"]


async def test_a_delete_of_nothing_is_told(gateway, namespace):
    with pytest.raises(NotFoundError):
        await gateway.delete("Job", namespace, "a", uid="any")


async def test_a_dry_run_makes_nothing_and_finds_mistakes(gateway, namespace):
    await gateway.create("PyTorchJob", namespace, pytorchjob("a", 1), dry_run=True)
    with pytest.raises(RefusedError, match="replicas"):
        await gateway.create("PyTorchJob", namespace, pytorchjob("a", "many"), dry_run=True)
    assert await gateway.list_children("PyTorchJob", namespace, OWNER) == []


async def test_long_lists_come_in_pages(gateway, namespace, monkeypatch):
    monkeypatch.setattr(kubernetes_gateway, "PAGE", 2)
    for number in range(5):
        await gateway.create("Job", namespace, job(f"job-{number}"))
    found = await gateway.list_children("Job", namespace, OWNER)
    assert [one["metadata"]["name"] for one in found] == [f"job-{number}" for number in range(5)]


async def test_what_is_not_there_is_none(gateway, namespace):
    assert await gateway.get_claim(namespace, "none") is None
    assert await gateway.get_node("none") is None


async def test_the_cluster_has_a_name(gateway):
    assert len(await gateway.cluster_id()) == 36


async def test_leases_keep_their_precondition(gateway, namespace):
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}}
    assert await gateway.get_lease(namespace, "l") is None
    made = await gateway.create_lease(namespace, lease)
    await gateway.replace_lease(namespace, "l", {**made, "spec": {**made["spec"], "holderIdentity": None}})
    with pytest.raises(ConflictError):
        await gateway.replace_lease(namespace, "l", made)


async def test_a_server_that_is_away_is_an_error_that_says_so(tmp_path, control_plane):
    broken = tmp_path / "kubeconfig"
    broken.write_text(control_plane.kubeconfig.read_text().replace(control_plane.url, "https://127.0.0.1:1"))
    async with await KubernetesGateway.connect(str(broken)) as gateway:
        with pytest.raises(GatewayError, match=r"127\.0\.0\.1"):
            await gateway.get_node("any")


async def test_a_server_that_says_nothing_is_not_waited_for_for_ever(tmp_path, control_plane, monkeypatch):
    monkeypatch.setattr(kubernetes_gateway, "CALL_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        broken = tmp_path / "kubeconfig"
        broken.write_text(control_plane.kubeconfig.read_text().replace(control_plane.url, address))
        async with await KubernetesGateway.connect(str(broken)) as gateway:
            with pytest.raises(GatewayError, match=r"no answer within"):
                await gateway.get_node("any")


async def test_no_way_to_the_server_is_said():
    with pytest.raises(GatewayError, match="no way to the API server"):
        await KubernetesGateway.connect("/nowhere/kubeconfig")
