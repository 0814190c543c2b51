"""The cluster of one machine: real processes, and the status that Kubernetes would write of them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from sweeprun_cli.local.cluster import LocalCluster
from sweeprun_cli.local.containers import Machine, inherited

OWNED = {"sweeprun.dev/uid": "uid-1", "sweeprun.dev/number": "0"}
DEADLINE = 20.0

POLITE = "import signal,sys,time; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(60)"
DEAF = "import signal,time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
WITH_CHILD = (
    "import subprocess,sys,time; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True); "
    "print(child.pid, flush=True); time.sleep(60)"
)


@pytest.fixture
async def cluster(tmp_path):
    machine = Machine(
        python=sys.executable, paths=(), environ=inherited(os.environ, python=sys.executable), directory=str(tmp_path)
    )
    made = LocalCluster(
        machine,
        directory=tmp_path / "logs",
        container="pytorch",
        before=lambda pod: None,
        told=lambda event: None,
        warn=lambda text: None,
    )
    async with made:
        made.add_run({"metadata": {"name": "run"}, "spec": {}})
        yield made


async def until(condition, what):
    """Fails after DEADLINE."""
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {DEADLINE} s: {what}"
        await asyncio.sleep(0.02)
    return found


def template(code, role, **more):
    container = {"name": "pytorch", "image": "none", "command": ["python", "-c", code], **more.pop("container", {})}
    labels = {**OWNED, "sweeprun.dev/role": role}
    return {"metadata": {"labels": labels}, "spec": {"containers": [container], **more}}


def owned_by_run(cluster):
    uid = cluster.store.get("SweepRun", "default", "run")["metadata"]["uid"]
    return [{"kind": "SweepRun", "name": "run", "uid": uid, "controller": True}]


async def train(cluster, *, master, worker=None, **more):
    replicas = {"Master": {"replicas": 1, "template": template(master, "attempt", **more)}}
    if worker is not None:
        replicas["Worker"] = {"replicas": 1, "template": template(worker, "attempt", **more)}
    metadata = {"name": "run-a0", "labels": OWNED, "ownerReferences": owned_by_run(cluster)}
    spec = {"runPolicy": {"cleanPodPolicy": "Running"}, "pytorchReplicaSpecs": replicas}
    return await cluster.gateway.create("PyTorchJob", "default", {"metadata": metadata, "spec": spec})


async def help_out(cluster, code, **spec):
    metadata = {"name": "run-p0", "labels": OWNED, "ownerReferences": owned_by_run(cluster)}
    manifest = {"metadata": metadata, "spec": {"template": template(code, "prepare"), **spec}}
    return await cluster.gateway.create("Job", "default", manifest)


def pods(cluster):
    return cluster.store.find("Pod")


def state(pod):
    return pod["status"]["containerStatuses"][0]["state"]["terminated"]


def up(cluster, count=1):
    """The pods that said something, once `count` of them did."""
    running = cluster.trainers(running=True)
    return running if sum(bool(cluster.log(pod).read_text()) for pod in running) == count else None


def conditions(cluster, kind, name):
    found = cluster.store.get(kind, "default", name)
    return {one["type"] for one in found.get("status", {}).get("conditions", [])}


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


async def test_a_job_that_ends_well_is_complete_and_its_answer_is_read(cluster):
    await help_out(cluster, "import os; open(os.environ['SWEEPRUN_TERMINATION_LOG'], 'w').write('the answer')")
    await until(lambda: "Complete" in conditions(cluster, "Job", "run-p0"), "the Job is complete")
    (pod,) = pods(cluster)
    assert (state(pod)["exitCode"], state(pod)["message"]) == (0, "the answer")
    assert pod["status"]["phase"] == "Succeeded"


async def test_a_job_that_fails_is_tried_again_up_to_its_limit(cluster):
    await help_out(cluster, "raise SystemExit(3)", backoffLimit=1)
    await until(lambda: "Failed" in conditions(cluster, "Job", "run-p0"), "the Job failed")
    assert [state(pod)["exitCode"] for pod in pods(cluster)] == [3, 3]


async def test_a_workload_whose_master_ends_well_has_succeeded(cluster):
    await train(cluster, master="print('done')", worker="print('done')")
    await until(lambda: "Succeeded" in conditions(cluster, "PyTorchJob", "run-a0"), "the PyTorchJob succeeded")


async def test_every_pod_knows_its_rank_and_the_port_they_meet_at(cluster, tmp_path):
    code = "import os, time; print(os.environ['RANK'], os.environ['WORLD_SIZE'], os.environ['MASTER_PORT'], flush=True)"
    spoken = tmp_path / "spoken"
    # the job has succeeded with its master, and its workers are then ended
    master = f"{code}\nwhile not os.path.exists({str(spoken)!r}): time.sleep(0.01)"
    await train(cluster, master=master, worker=f"{code}; open({str(spoken)!r}, 'w').close()")
    await until(lambda: "Succeeded" in conditions(cluster, "PyTorchJob", "run-a0"), "the PyTorchJob succeeded")
    said = sorted(log.read_text().split() for log in (tmp_path / "logs").glob("*/pytorch.log"))
    assert [words[:2] for words in said] == [["0", "2"], ["1", "2"]]
    assert said[0][2] == said[1][2]


async def test_a_replica_that_fails_ends_the_others_with_grace(cluster):
    await train(cluster, master=POLITE, worker="raise SystemExit(5)")
    await until(lambda: "Failed" in conditions(cluster, "PyTorchJob", "run-a0"), "the PyTorchJob failed")
    await until(lambda: len(pods(cluster)) == 1, "only the failed pod is left")
    assert state(pods(cluster)[0])["exitCode"] == 5


async def test_an_evicted_pod_is_told_to_stop_and_says_who_asked(cluster):
    await train(cluster, master=POLITE)
    (pod,) = await until(lambda: up(cluster), "the pod is up")
    assert cluster.evict(pod)
    ended = await until(
        lambda: next((one for one in pods(cluster) if one["status"]["phase"] == "Succeeded"), None), "the pod ended"
    )
    disruption = next(one for one in ended["status"]["conditions"] if one["type"] == "DisruptionTarget")
    assert (disruption["status"], disruption["reason"]) == ("True", "EvictionByEvictionAPI")
    assert ended["metadata"]["deletionTimestamp"]
    assert state(ended)["exitCode"] == 0
    uid = pod["metadata"]["uid"]
    await until(lambda: all(one["metadata"]["uid"] != uid for one in pods(cluster)), "the pod is gone")


async def test_a_pod_that_does_not_listen_is_killed_when_its_grace_is_over(cluster):
    await train(cluster, master=DEAF, terminationGracePeriodSeconds=0.3)
    (pod,) = await until(lambda: up(cluster), "the pod is up")
    cluster.evict(pod)
    ended = await until(
        lambda: next((one for one in pods(cluster) if one["status"]["phase"] == "Failed"), None), "the pod ended"
    )
    assert state(ended)["exitCode"] == 137


async def test_a_killed_pod_carries_no_condition(cluster):
    await train(cluster, master=POLITE)
    (pod,) = await until(lambda: up(cluster), "the pod is up")
    assert cluster.kill(pod)
    await until(lambda: "Failed" in conditions(cluster, "PyTorchJob", "run-a0"), "the PyTorchJob failed")
    (ended,) = pods(cluster)
    assert state(ended)["exitCode"] == 137
    assert {one["type"] for one in ended["status"]["conditions"]} == {"PodScheduled"}


async def test_the_end_of_the_log_is_the_message_of_a_failure(cluster):
    more = {"container": {"terminationMessagePolicy": "FallbackToLogsOnError"}}
    await train(cluster, master="raise ValueError('no such layer')", **more)
    await until(lambda: "Failed" in conditions(cluster, "PyTorchJob", "run-a0"), "the PyTorchJob failed")
    assert "no such layer" in state(pods(cluster)[0])["message"]


async def test_a_program_that_does_not_exist_is_an_end_that_never_started(cluster):
    await train(cluster, master="", container={"command": ["/no/such/program"]})
    await until(lambda: "Failed" in conditions(cluster, "PyTorchJob", "run-a0"), "the PyTorchJob failed")
    ended = state(pods(cluster)[0])
    assert (ended["reason"], ended["startedAt"][:4]) == ("StartError", "1970")


async def test_nothing_outlives_the_first_process_of_a_pod(cluster):
    await train(cluster, master=WITH_CHILD)
    (pod,) = await until(lambda: up(cluster), "the pod is up")
    child = int(cluster.log(pod).read_text())
    assert alive(child)
    cluster.kill(pod)
    await until(lambda: not alive(child), "the child is gone")


async def test_what_belongs_to_a_deleted_workload_goes_with_it(cluster):
    made = await train(cluster, master=POLITE, worker=POLITE)
    await until(lambda: up(cluster, 2), "both pods are up")
    await cluster.gateway.delete("PyTorchJob", "default", "run-a0", uid=made["metadata"]["uid"])
    await until(lambda: not pods(cluster), "no pod is left")


async def test_nothing_runs_after_the_cluster_has_ended(tmp_path):
    machine = Machine(
        python=sys.executable, paths=(), environ=inherited(os.environ, python=sys.executable), directory=str(tmp_path)
    )
    one = LocalCluster(
        machine,
        directory=tmp_path / "logs",
        container="pytorch",
        before=lambda pod: None,
        told=lambda event: None,
        warn=lambda text: None,
    )
    async with one:
        one.add_run({"metadata": {"name": "run"}, "spec": {}})
        await train(one, master=WITH_CHILD, worker=DEAF)
        await until(lambda: up(one, 2), "both pods are up")
        children = [int(text) for pod in one.trainers() if (text := one.log(pod).read_text().strip()).isdigit()]
    assert len(children) == 1
    assert not any(alive(child) for child in children)
