"""What scripts of before left on the volume when their pod was evicted: a SweepRun takes it over and ends it."""

from __future__ import annotations

import copy
import os
import time
import uuid

import yaml

from support.cluster import Raw, eventually
from support.story import EXAMPLES, Story, named, replicas

ORIGINAL = EXAMPLES.parent / "original"
IN_IMAGE = "/opt/sweeprun/examples/original"
USER = 1000
BY_HAND = f"""
export SWEEP=$1 ROOT=/data
export RUN_ID=$(python {IN_IMAGE}/sweep_init.py $ROOT $SWEEP)
exec {IN_IMAGE}/train.sh
"""


def manifest(name: str, sweep: str) -> Raw:
    raw: Raw = yaml.safe_load((ORIGINAL / "sweeprun.yaml").read_text())
    raw["metadata"] = {"name": name}
    raw["spec"]["sweepName"] = sweep
    raw["spec"]["resume"]["adoption"]["idleSeconds"] = 60
    return raw


def pod_of_before(name: str, sweep: str) -> Raw:
    """The pod of the manifest as it ran without an operator: sweep_init, then the training."""
    spec = copy.deepcopy(replicas(manifest(name, sweep))[0]["template"]["spec"])
    trainer = named(spec, "pytorch")
    trainer["command"] = ["bash", "-c", BY_HAND, "before", sweep]
    arguments = {"TRAIN_ARGS": "--step-seconds=0.2", "LAUNCHER": "python"}
    trainer["env"] = [{"name": name, "value": value} for name, value in arguments.items()]
    trainer["volumeMounts"] = [{"name": "data", "mountPath": "/data", "subPath": "experiments"}]
    claim = {"claimName": "sweeps"}
    spec |= {"restartPolicy": "Never", "volumes": [{"name": "data", "persistentVolumeClaim": claim}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def evicted(told: Story, sweep: str) -> tuple[str, int]:
    """(run ID, step of what the scripts left) of a run that nobody looks after any more."""
    cluster, pod = told.cluster, f"{told.name}-before"
    for directory in (told.volume, told.volume / "sweep"):
        directory.mkdir(exist_ok=True)
        os.chown(directory, USER, USER)
    cluster.delete("Pod", pod, grace=0)
    eventually(lambda: cluster.get("Pod", pod) is None, "no pod of an earlier session", timeout=60)
    cluster.create(pod_of_before(pod, sweep))
    runs = told.volume / "sweep" / sweep / "runs"
    eventually(lambda: list(runs.glob("*/checkpoints/trainer_checkpoint.json")), "a checkpoint", timeout=180)
    (directory,) = runs.iterdir()
    assert (directory / f"{directory.name}.incomplete").exists()
    cluster.evict(pod)
    eventually(lambda: cluster.get("Pod", pod) is None, "the evicted pod is gone", timeout=120)
    then = time.time() - 120
    for path in (*directory.rglob("*"), directory, runs, runs.parent):
        os.utime(path, (then, then))
    record = yaml.safe_load((directory / "checkpoints" / "trainer_checkpoint.json").read_text())
    return directory.name, record["global_step"]


def test_a_run_whose_exit_trap_removed_its_marker_at_its_eviction_goes_on(story):
    told, sweep = story("heir-of-original"), f"original-{uuid.uuid4().hex[:6]}"
    run_id, step = evicted(told, sweep)
    directory = told.volume / "sweep" / sweep / "runs" / run_id
    assert not (directory / f"{run_id}.incomplete").exists(), "the trap did not fire: this test shows nothing"
    configuration = (directory / "train_config_overrides.yaml").read_bytes()
    raw = manifest(told.name, sweep)
    del raw["spec"]["init"]
    raw["spec"] |= {"runId": run_id}
    raw["spec"]["resume"]["onNoValidCheckpoint"] = "Fail"
    told.apply(raw)
    status = told.wait_complete()
    assert (status["runId"], status["counts"]["resumes"], status["counts"]["restarts"]) == (run_id, 1, 0)
    first = told.history()[0]
    assert (first["outcome"], first["fromStep"]) == ("Resume", step)
    assert (directory / "train_config_overrides.yaml").read_bytes() == configuration
    assert (directory / "result.json").exists()
