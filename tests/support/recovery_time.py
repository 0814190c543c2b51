"""What an eviction costs until training goes on, phase by phase, beside a plain PyTorchJob that restarts OnFailure.

Of both, the same script is evicted and the same moment is taken: the first step that the new ranks have finished, in
the master's log. `make bench-recovery` prints the table of ten evictions.
"""

from __future__ import annotations

import copy
import re
import statistics
import time

from support.cluster import Cluster, Raw, eventually
from support.story import Story, example, named, with_arguments

PHASES = ("detect", "drain", "prepare", "validation", "queue", "start", "firstStep")
"""As in status.history[].seconds; validation is part of prepare."""
TARGET = 1.25
_ENDLESS = ("--steps", "1000000")
_TRAINER = "pytorch"
_STEP = re.compile(r"^step \d+ loss", re.MULTILINE)


def plain_job(name: str) -> Raw:
    """The example's script without SweepRun: its ranks are restarted where they fail, from step 0."""
    job: Raw = copy.deepcopy(example("plain", name)["spec"]["template"])
    job["metadata"] = {"name": name}
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        replica["restartPolicy"] = "OnFailure"
        pod = replica["template"]["spec"]
        pod["containers"] = [named(pod, _TRAINER)]
        trainer = pod["containers"][0]
        ours = [argument for argument in trainer["args"] if "SWEEPRUN" not in argument]
        trainer["args"] = [*ours, *_ENDLESS, "--checkpoint-dir", "/tmp/checkpoints"]
        trainer.setdefault("volumeMounts", []).append({"name": "scratch", "mountPath": "/tmp"})
        pod.setdefault("volumes", []).append({"name": "scratch", "emptyDir": {}})
    return job


def endless_run(name: str) -> Raw:
    return with_arguments(example("plain", name), *_ENDLESS)


def time_plain_restart(cluster: Cluster, name: str) -> float:
    """Seconds from the eviction of the worker to the first step of the ranks that were started in its place."""
    cluster.create(plain_job(name))
    master, worker = f"{name}-master-0", f"{name}-worker-0"

    def trains(restarts: int) -> bool:
        pod = cluster.get("Pod", master)
        for container in (pod or {}).get("status", {}).get("containerStatuses", []):
            if container["restartCount"] >= restarts and "running" in container["state"]:
                return _STEP.search(cluster.log(master, _TRAINER)) is not None
        return False

    try:
        eventually(lambda: trains(0), "the plain job trains", timeout=180)
        pod = cluster.get("Pod", master)
        assert pod is not None
        restarts = pod["status"]["containerStatuses"][0]["restartCount"]
        began = time.monotonic()
        cluster.evict(worker)
        eventually(lambda: trains(restarts + 1), "the plain job trains again", timeout=240, every=0.1)
        return time.monotonic() - began
    finally:
        cluster.delete("PyTorchJob", name)


def time_recovery(told: Story) -> dict[str, float]:
    """Seconds by phase and their `total`, of one eviction of the worker of a run that trains."""
    attempt = told.status["current"]["attempt"]
    began = time.monotonic()
    told.cluster.evict(told.pod("worker-0"))
    master = f"{told.name}-a{attempt + 1}-master-0"
    eventually(lambda: _STEP.search(told.cluster.log(master, _TRAINER)), "it trains again", timeout=240, every=0.1)
    total = time.monotonic() - began
    status = told.wait(lambda status: status["history"][-1]["seconds"].get("start") is not None, "it runs")
    seconds: dict[str, float] = status["history"][-1]["seconds"]
    known = sum(seconds.get(phase, 0.0) for phase in PHASES if phase not in ("validation", "firstStep"))
    return seconds | {"firstStep": total - known, "total": total}


def table(recoveries: list[dict[str, float]], restarts: list[float]) -> str:
    """Median and worst of each phase, and the ratio of the medians."""
    lines = [f"{'seconds':<34}{'median':>8}{'worst':>8}"]
    for phase in (*PHASES, "total"):
        values = [seconds[phase] for seconds in recoveries if phase in seconds]
        lines.append(f"{phase:<34}{statistics.median(values):8.1f}{max(values):8.1f}")
    lines.append(f"{'plain PyTorchJob, OnFailure':<34}{statistics.median(restarts):8.1f}{max(restarts):8.1f}")
    ratio = statistics.median(seconds["total"] for seconds in recoveries) / statistics.median(restarts)
    lines.append(f"ratio of the medians {ratio:.2f}, target {TARGET}")
    return "\n".join(lines)


def measure(told: Story, evictions: int) -> list[dict[str, float]]:
    """One run, evicted again and again, each time after it has got somewhere: no eviction has to wait for a backoff."""
    recoveries = []
    for number in range(evictions):
        told.wait_attempt(number)
        _wait_progress(told)
        recoveries.append(time_recovery(told))
    return recoveries


def measure_plain(cluster: Cluster, name: str, evictions: int) -> list[float]:
    """A job for each: a second restart in place would wait for the kubelet's own backoff."""
    seconds = []
    for number in range(evictions):
        job = f"{name}-{number}"
        seconds.append(time_plain_restart(cluster, job))
        selector = f"training.kubeflow.org/job-name={job}"
        eventually(
            lambda selector=selector: not cluster.list("Pod", selector=selector), "its pods are gone", timeout=120
        )
    return seconds


def _wait_progress(told: Story) -> None:
    epoch = told.history()[-1]["epoch"]
    eventually(lambda: any(found == epoch for _, found, _ in told.checkpoints()), "a checkpoint", timeout=120)
