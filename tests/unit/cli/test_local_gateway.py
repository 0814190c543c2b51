"""What the operator relies on in a Gateway, asked of local mode's; nothing here knows how it is made."""

from __future__ import annotations

import pytest

from support.objects import UID, job, run, workload
from sweeprun_cli.local.gateway import LocalGateway
from sweeprun_cli.local.store import Store
from sweeprun_operator.cluster.gateway import AlreadyExistsError, ConflictError, NotFoundError, RefusedError

NAMESPACE = "default"


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def gateway(store):
    return LocalGateway(store, told=lambda event: None)


def pytorchjob(name="run-a0", **replicas):
    container = {"name": "pytorch", "image": "trainer", "command": ["python", "train.py"]}
    replica = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    return {**workload(), "metadata": {"name": name}, "spec": {"pytorchReplicaSpecs": replicas or {"Master": replica}}}


async def test_a_child_gets_a_uid_a_version_and_a_generation(gateway):
    made = await gateway.create("Job", NAMESPACE, job())
    assert made["metadata"]["uid"]
    assert made["metadata"]["resourceVersion"]
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["uid"] != job()["metadata"]["uid"]


async def test_children_are_found_by_the_label_of_their_owner(gateway):
    await gateway.create("Job", NAMESPACE, job())
    assert [one["metadata"]["name"] for one in await gateway.list_children("Job", NAMESPACE, UID)] == ["run-p0"]
    assert await gateway.list_children("Job", NAMESPACE, "another") == []
    assert await gateway.list_children("Job", "elsewhere", UID) == []
    assert await gateway.list_children("PyTorchJob", NAMESPACE, UID) == []


async def test_a_name_that_is_taken_is_refused(gateway):
    first = await gateway.create("Job", NAMESPACE, job())
    with pytest.raises(AlreadyExistsError):
        await gateway.create("Job", NAMESPACE, job())
    assert await gateway.get_child("Job", NAMESPACE, "run-p0") == first


async def test_a_name_is_free_again_after_its_deletion(gateway):
    first = await gateway.create("Job", NAMESPACE, job())
    await gateway.delete("Job", NAMESPACE, "run-p0", uid=first["metadata"]["uid"])
    second = await gateway.create("Job", NAMESPACE, job())
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


async def test_a_deletion_under_another_uid_changes_nothing(gateway):
    await gateway.create("Job", NAMESPACE, job())
    with pytest.raises(ConflictError):
        await gateway.delete("Job", NAMESPACE, "run-p0", uid="another")
    assert await gateway.get_child("Job", NAMESPACE, "run-p0") is not None


async def test_a_deletion_of_nothing_is_told(gateway):
    with pytest.raises(NotFoundError):
        await gateway.delete("Job", NAMESPACE, "run-p0", uid="any")


async def test_a_status_is_written_over_the_version_that_was_read(gateway, store):
    read = store.create("SweepRun", NAMESPACE, run())
    written = await gateway.replace_status({**read, "status": {"phase": "Running"}})
    assert written["status"] == {"phase": "Running"}
    assert written["metadata"]["resourceVersion"] != read["metadata"]["resourceVersion"]
    assert (await gateway.get_run(NAMESPACE, "run"))["status"] == {"phase": "Running"}


async def test_a_status_over_an_older_version_is_a_conflict(gateway, store):
    read = store.create("SweepRun", NAMESPACE, run())
    await gateway.replace_status({**read, "status": {"phase": "Running"}})
    with pytest.raises(ConflictError):
        await gateway.replace_status({**read, "status": {"phase": "Failed"}})
    assert (await gateway.get_run(NAMESPACE, "run"))["status"] == {"phase": "Running"}


async def test_a_status_of_a_run_that_was_made_anew_is_a_conflict(gateway, store):
    read = store.create("SweepRun", NAMESPACE, run())
    await gateway.delete_run(NAMESPACE, "run", uid=read["metadata"]["uid"])
    again = store.create("SweepRun", NAMESPACE, run())
    stale = {**read, "metadata": {**read["metadata"], "resourceVersion": again["metadata"]["resourceVersion"]}}
    with pytest.raises(ConflictError):
        await gateway.replace_status({**stale, "status": {"phase": "Failed"}})


async def test_a_status_of_nothing_is_told(gateway):
    with pytest.raises(NotFoundError):
        await gateway.replace_status({**run(), "status": {}})


async def test_a_status_write_leaves_the_spec_alone(gateway, store):
    read = store.create("SweepRun", NAMESPACE, run())
    await gateway.replace_status({**read, "spec": {}, "status": {"phase": "Running"}})
    assert (await gateway.get_run(NAMESPACE, "run"))["spec"] == read["spec"]


async def test_what_was_read_can_be_changed_without_changing_what_is_stored(gateway):
    made = await gateway.create("Job", NAMESPACE, job())
    made["metadata"]["labels"].clear()
    (await gateway.list_children("Job", NAMESPACE, UID))[0]["spec"]["changed"] = True
    assert (await gateway.get_child("Job", NAMESPACE, "run-p0"))["spec"] == {}


async def test_a_deleted_pod_stays_until_its_process_is_gone(gateway, store):
    made = store.create("Pod", NAMESPACE, {"metadata": {"name": "pod"}, "spec": {"terminationGracePeriodSeconds": 7}})
    await gateway.delete("Pod", NAMESPACE, "pod", uid=made["metadata"]["uid"])
    going = await gateway.get_child("Pod", NAMESPACE, "pod")
    assert going["metadata"]["deletionTimestamp"]
    assert going["metadata"]["deletionGracePeriodSeconds"] == 7
    store.finalize("Pod", going)
    assert await gateway.get_child("Pod", NAMESPACE, "pod") is None


async def test_a_second_deletion_does_not_prolong_the_grace(gateway, store):
    made = store.create("Pod", NAMESPACE, {"metadata": {"name": "pod"}})
    await gateway.delete("Pod", NAMESPACE, "pod", uid=made["metadata"]["uid"])
    first = await gateway.get_child("Pod", NAMESPACE, "pod")
    await gateway.delete("Pod", NAMESPACE, "pod", uid=made["metadata"]["uid"])
    assert await gateway.get_child("Pod", NAMESPACE, "pod") == first


async def test_a_dry_run_makes_nothing(gateway):
    await gateway.create("PyTorchJob", NAMESPACE, pytorchjob(), dry_run=True)
    assert await gateway.get_child("PyTorchJob", NAMESPACE, "run-a0") is None


@pytest.mark.parametrize(
    ("replicas", "said"),
    [
        ({"Chief": {"replicas": 1}}, "must be Master or Worker"),
        ({"Worker": {"replicas": "many"}}, "must be a whole number"),
        ({"Master": {"replicas": 2}}, "must be 1"),
        ({"Worker": {"template": {"spec": {"containers": [{"name": "main"}]}}}}, "named pytorch"),
    ],
)
async def test_a_wrong_workload_is_refused_as_by_training_operator(gateway, replicas, said):
    with pytest.raises(RefusedError, match=said):
        await gateway.create("PyTorchJob", NAMESPACE, pytorchjob(**replicas), dry_run=True)


async def test_runs_come_in_pages(gateway, store):
    for name in ("a", "b", "c"):
        store.create("SweepRun", NAMESPACE, run(name))
    first, token = await gateway.list_metadata("SweepRun", None, limit=2, token=None)
    rest, end = await gateway.list_metadata("SweepRun", None, limit=2, token=token)
    assert [one["metadata"]["name"] for one in (*first, *rest)] == ["a", "b", "c"]
    assert end is None
