"""Random interleavings of all that may happen to a run and to its operator. When the faults stop, it finishes."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from datetime import timedelta
from random import Random

import pytest

from support.decided import BUILD
from support.mortal import KilledError
from support.simulated_cluster import NAME, NAMESPACE, SimulatedCluster
from support.simulated_volume import STEPS
from support.unsteady import Chronicle, Unsteady
from sweeprun_operator.api.status import SweepRunStatus
from sweeprun_operator.cluster.gateway import GatewayError
from sweeprun_operator.controller.decisions import BoundDecisions
from sweeprun_operator.controller.queue import Key
from sweeprun_operator.controller.reconcile import Next, Reconciler

SEEDS = range(12)
TROUBLED_STEPS = 120
QUIET_STEPS = 1500
RESYNC_SECONDS = 300
LIMITS = {
    "maxFailures": 1000,
    "maxNeverStarted": 1000,
    "maxAttemptsWithoutProgress": 1000,
    "startTimeoutSeconds": 120,
    "backoff": {"initialSeconds": 1, "maxSeconds": 5},
}


class Life:
    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.cluster = SimulatedCluster(self.rng, limits=LIMITS)
        self.gateway = Unsteady(self.cluster, self.rng)
        self.chronicle = Chronicle(self.cluster)
        self.operators = [self._born(), self._born()]
        self.due = self.cluster.now

    def _born(self) -> Reconciler:
        return Reconciler(
            self.gateway,
            BoundDecisions(BUILD),
            clock=lambda: self.cluster.now,
            told=self._told,
        )

    def _told(self, before: SweepRunStatus, after: SweepRunStatus) -> None:
        self.chronicle(before, after)

    async def one_pass(self, operator: int = 0) -> None:
        try:
            coming = await self.operators[operator].reconcile(Key(NAMESPACE, NAME))
        except GatewayError:
            coming = Next(failed=True)
        except KilledError:
            self.operators[operator] = self._born()
            coming = Next(failed=True)
        wait = 1.0 if coming.failed else coming.after_seconds
        self.due = self.cluster.now + timedelta(
            seconds=min(wait, RESYNC_SECONDS) if wait is not None else RESYNC_SECONDS
        )

    async def passes(self) -> None:
        """One operator, or two that both believe to be the active one."""
        if self.rng.random() < 0.2:
            await asyncio.gather(self.one_pass(0), self.one_pass(1))
        else:
            await self.one_pass()

    async def troubled(self, steps: int = TROUBLED_STEPS) -> None:
        for _ in range(steps):
            self.gateway.trouble = 0.05
            self.cluster.step(self.rng.choice([0.1, 1, 3, 10]), trouble=0.3)
            if self.rng.random() < 0.15:
                self.rng.choice(FAULTS)(self.cluster)
            if self.rng.random() < 0.7:  # an event that is not dropped
                await self.passes()
            if self.cluster.is_true("Complete"):
                return

    def status_becomes(self, status: dict) -> None:
        """By the hand of an admin, or by a restore."""
        self.cluster.run["status"] = copy.deepcopy(status)
        self.cluster.put("SweepRun", self.cluster.run)
        self.cluster.attempts_made.clear()
        self.chronicle = Chronicle(self.cluster, rebuilt=True)

    async def quiet(self) -> None:
        """No faults, and no events either: what was asked for and the resync have to do."""
        self.gateway.trouble = 0.0
        for fault in (nodes_are_back, queue_admits, user_goes_on):
            fault(self.cluster)
        for _ in range(QUIET_STEPS):
            self.cluster.step(5)
            if self.cluster.now >= self.due:
                await self.one_pass()
            if self.cluster.is_true("Complete"):
                return
        raise AssertionError(f"the run is stuck: {self.cluster.status['current']}\n{self.cluster.status['conditions']}")


# -- what may happen ---------------------------------------------------------------------------------------------------


def some_pod(cluster: SimulatedCluster, *phases: str):
    """On a node that answers."""
    found = [pod for pod in cluster.trainers() if pod["status"]["phase"] in phases]
    found = [pod for pod in found if pod["spec"]["nodeName"] not in cluster.silent]
    return cluster.rng.choice(found) if found else None


def eviction(cluster: SimulatedCluster) -> None:
    pod = some_pod(cluster, "Pending", "Running")
    if pod is not None:
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        pod["status"].setdefault("conditions", []).append({**condition, "lastTransitionTime": cluster.time()})
        cluster.terminate(pod)


def error_of_the_program(cluster: SimulatedCluster) -> None:
    pod = some_pod(cluster, "Running")
    if pod is not None:
        cluster.finish(pod, 1, reason="Error")


def lack_of_memory(cluster: SimulatedCluster) -> None:
    pod = some_pod(cluster, "Running")
    if pod is not None:
        cluster.finish(pod, 137, reason="OOMKilled")


def refusal_by_the_kubelet(cluster: SimulatedCluster) -> None:
    pod = some_pod(cluster, "Pending")
    if pod is not None:
        pod["status"] |= {"phase": "Failed", "reason": "UnexpectedAdmissionError"}
        cluster.put("Pod", pod)


def forced_deletion(cluster: SimulatedCluster) -> None:
    pod = some_pod(cluster, "Pending", "Running")
    if pod is not None:
        cluster.remove("Pod", pod["metadata"]["name"])


def job_deleted_by_somebody(cluster: SimulatedCluster) -> None:
    for name in cluster.names("PyTorchJob"):
        cluster.remove("PyTorchJob", name)


def prepare_deleted_by_somebody(cluster: SimulatedCluster) -> None:
    for name in cluster.names("Job"):
        cluster.remove("Job", name)


def node_falls_silent(cluster: SimulatedCluster) -> None:
    set_ready(cluster, "node-2", "Unknown")
    cluster.silent.add("node-2")


def nodes_are_back(cluster: SimulatedCluster) -> None:
    set_ready(cluster, "node-2", "True")
    cluster.silent.clear()


def set_ready(cluster: SimulatedCluster, name: str, value: str) -> None:
    node = cluster.read("Node", name)
    assert node is not None
    node["status"]["conditions"][0]["status"] = value
    cluster.put("Node", node)


def set_suspend(cluster: SimulatedCluster, value: bool) -> None:
    for job in cluster.all("PyTorchJob"):
        job["spec"]["runPolicy"]["suspend"] = value
        cluster.put("PyTorchJob", job)


def queue_suspends(cluster: SimulatedCluster) -> None:
    set_suspend(cluster, True)


def queue_admits(cluster: SimulatedCluster) -> None:
    set_suspend(cluster, False)


def user_suspends(cluster: SimulatedCluster) -> None:
    cluster.edit(suspend=True)


def user_goes_on(cluster: SimulatedCluster) -> None:
    cluster.edit(suspend=False)


def user_adds_a_worker(cluster: SimulatedCluster) -> None:
    replicas = cluster.run["spec"]["template"]["spec"]["pytorchReplicaSpecs"]
    replicas["Worker"]["replicas"] = cluster.rng.choice([1, 2])
    cluster.edit()


FAULTS: list[Callable[[SimulatedCluster], None]] = [
    eviction,
    eviction,
    error_of_the_program,
    lack_of_memory,
    refusal_by_the_kubelet,
    forced_deletion,
    job_deleted_by_somebody,
    prepare_deleted_by_somebody,
    node_falls_silent,
    nodes_are_back,
    nodes_are_back,
    queue_suspends,
    queue_admits,
    queue_admits,
    user_suspends,
    user_goes_on,
    user_goes_on,
    user_adds_a_worker,
]


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_run_finishes_when_the_faults_stop(seed):
    life = Life(seed)
    await life.troubled()
    await life.quiet()
    status, volume = life.cluster.status, life.cluster.volume
    assert volume.said_complete
    assert volume.epochs[-1].is_complete()
    assert volume.epochs[-1].step == STEPS
    assert status["phase"] == "Completed"
    # a job that somebody deleted before its UID was written down is made once more, under the same number
    assert life.cluster.attempts_made == sorted(life.cluster.attempts_made)
    assert status["counts"]["attempts"] == status["current"]["attempt"] + 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("before", [0, 25], ids=["all of it", "the newest part"])
async def test_a_run_whose_status_is_lost_goes_on_from_what_the_volume_knows(seed, before):
    life = Life(100 + seed)
    await life.troubled(before)
    old = copy.deepcopy(life.cluster.status) if before else {}
    await life.troubled(life.rng.randrange(15, 50))
    began = sum(bool(epoch.started) for epoch in life.cluster.volume.epochs)
    life.status_becomes(old)
    await life.troubled(30)
    await life.quiet()
    status, volume = life.cluster.status, life.cluster.volume
    assert volume.said_complete
    assert volume.epochs[-1].is_complete(), "by the newest epoch: no second writer"
    assert status["phase"] == "Completed"
    if not old:
        assert status["counts"]["attempts"] >= began, "as far as the volume knows"
    assert life.cluster.attempts_made == sorted(life.cluster.attempts_made)


async def test_without_faults_a_run_has_one_attempt():
    life = Life(0)
    await life.quiet()
    assert life.cluster.status["counts"]["attempts"] == 1
    assert life.cluster.attempts_made == [0]
    assert life.chronicle.causes == {0: "Completed"}
