"""How long one eviction costs, phase by phase, beside a plain PyTorchJob with restartPolicy OnFailure.

Printed, never asserted against a clock: two machines' times cannot be compared.
"""

import copy
import time

import pytest

from support.cluster import eventually
from support.story import example, named

STEP = 100


def plain_job(name):
    """The same script without SweepRun: restarted in place of the evicted pod, from step 0."""
    manifest = example("plain", name)
    job = copy.deepcopy(manifest["spec"]["template"])
    job["metadata"] = {"name": name}
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        replica["restartPolicy"] = "OnFailure"
        pod = replica["template"]["spec"]
        pod["containers"] = [named(pod, "pytorch")]
        trainer = pod["containers"][0]
        trainer["args"] = [*trainer.get("args", []), "--checkpoint-dir", "/tmp/checkpoints"]
        trainer.setdefault("volumeMounts", []).append({"name": "scratch", "mountPath": "/tmp"})
        pod.setdefault("volumes", []).append({"name": "scratch", "emptyDir": {}})
    return job


@pytest.mark.node
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
    baseline = time_plain_restart(cluster)
    with capsys.disabled():
        print(f"\none eviction, SweepRun: {running:.1f} s until all pods of the next attempt run")
        for phase, value in seconds.items():
            print(f"  {phase:12} {value:6.1f} s")
        print(f"plain PyTorchJob, OnFailure: {baseline:.1f} s until the evicted pod's successor runs")
        print(f"ratio {running / baseline:.1f}; the plain job then starts over at step 0")
    assert {"drain", "prepare", "start"} <= set(seconds)


def time_plain_restart(cluster):
    name = "timed-plain"
    cluster.create(plain_job(name))
    pod = f"{name}-worker-0"

    def running(*, other_than=None):
        found = cluster.get("Pod", pod)
        ready = found and found["status"]["phase"] == "Running" and found["metadata"]["uid"] != other_than
        return found["metadata"]["uid"] if ready else None

    try:
        first = eventually(running, "the plain job runs", timeout=120)
        begun = time.monotonic()
        cluster.evict(pod)
        eventually(lambda: running(other_than=first), "its worker runs again", timeout=180, every=0.1)
        return time.monotonic() - begun
    finally:
        cluster.delete("PyTorchJob", name)
