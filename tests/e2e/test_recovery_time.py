"""How long one eviction costs, phase by phase, beside a plain PyTorchJob with restartPolicy OnFailure.

Printed, never asserted against a clock: two machines' times cannot be compared.
"""

import copy
import time

import pytest

from support.cluster import eventually
from support.story import example, named

STEP = 100
PHASES = ("detect", "drain", "prepare", "validation", "queue", "start", "firstStep")


def plain_job(name):
    """The same script without SweepRun: its ranks are restarted where they fail, from step 0."""
    manifest = example("plain", name)
    job = copy.deepcopy(manifest["spec"]["template"])
    job["metadata"] = {"name": name}
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        replica["restartPolicy"] = "OnFailure"
        pod = replica["template"]["spec"]
        pod["containers"] = [named(pod, "pytorch")]
        trainer = pod["containers"][0]
        ours = [argument for argument in trainer["args"] if "SWEEPRUN" not in argument]
        # a line in the log for each step; long enough to be evicted in the middle
        trainer["args"] = [
            *ours,
            "--steps",
            "100000",
            "--checkpoint-every",
            "1",
            "--checkpoint-dir",
            "/tmp/checkpoints",
        ]
        trainer.setdefault("volumeMounts", []).append({"name": "scratch", "mountPath": "/tmp"})
        pod.setdefault("volumes", []).append({"name": "scratch", "emptyDir": {}})
    return job


@pytest.mark.alone
def test_the_time_of_each_phase_is_measured_and_printed(story, cluster, capsys):
    name = "timed"
    told = story(name).apply(example("library", name))
    told.wait_step(STEP)
    begun = time.monotonic()
    told.cluster.evict(told.pod("worker-0"))
    told.wait_attempt(1)
    running = time.monotonic() - begun
    told.wait_complete()
    seconds = told.history()[0]["seconds"] | told.history()[1]["seconds"]
    first_step = running + seconds["firstStep"]
    baseline = time_plain_restart(cluster)
    with capsys.disabled():
        print(f"\none eviction, SweepRun: {first_step:.1f} s until the first step after the checkpoint")
        for phase in PHASES:
            print(f"  {phase:12} {seconds[phase]:6.1f} s")
        print(f"plain PyTorchJob, OnFailure: {baseline:.1f} s until its first step, which is step 1 again")
        print(f"ratio {first_step / baseline:.1f}; SweepRun repeats {told.status['savings']['stepsRepeated']} steps")
    assert set(seconds) >= set(PHASES)


def time_plain_restart(cluster):
    """Seconds from the eviction of the worker to the first step of the ranks that were started in its place."""
    name = "timed-plain"
    cluster.create(plain_job(name))
    master, worker = f"{name}-master-0", f"{name}-worker-0"

    def trains(restarts):
        pod = cluster.get("Pod", master)
        for container in (pod or {}).get("status", {}).get("containerStatuses", []):
            if container["restartCount"] >= restarts and "running" in container["state"]:
                return "step 1 " in cluster.log(master, "pytorch")
        return False

    try:
        eventually(lambda: trains(0), "the plain job trains", timeout=180)
        restarts = cluster.get("Pod", master)["status"]["containerStatuses"][0]["restartCount"]
        begun = time.monotonic()
        cluster.evict(worker)
        eventually(lambda: trains(restarts + 1), "the plain job trains again", timeout=240, every=0.1)
        return time.monotonic() - begun
    finally:
        cluster.delete("PyTorchJob", name)
