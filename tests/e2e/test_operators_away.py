"""Either operator may be away while a run is interrupted: what happened meanwhile is told by what is left of it."""

from pathlib import Path

import pytest

from support.cluster import eventually
from support.continuation import check_continued, pace
from support.story import SOON, of_one_rank, with_arguments
from sweeprun_protocol.exit_codes import ExitCode

OURS = ("sweeprun-system", "sweeprun")
TRAINING_OPERATOR = ("kubeflow", "training-operator")
SLOT = "master-0"


@pytest.fixture
def deployments(cluster):
    """Takes Deployments away, and brings them back at the latest when the story ends."""
    found = Deployments(cluster)
    yield found
    for which in list(found.away):
        found.bring_back(which)


class Deployments:
    def __init__(self, cluster):
        self._cluster = cluster
        self.away = set()

    def take(self, *those):
        self.away.update(those)
        for which in those:
            self._scale(which, 0)
        for which in those:
            self._settle(which, 0)

    def bring_back(self, which):
        self._scale(which, 1)
        self._settle(which, 1)
        self.away.remove(which)

    def _scale(self, which, replicas):
        namespace, name = which
        self._cluster.in_namespace(namespace).patch("Deployment", name, {"spec": {"replicas": replicas}})

    def _settle(self, which, replicas):
        eventually(lambda: self._pods(which) == (replicas, replicas), f"{replicas} pods of {which[1]}", timeout=120)

    def _pods(self, which):
        """(available, all of them)"""
        namespace, name = which
        place = self._cluster.in_namespace(namespace)
        available = place.get("Deployment", name)["status"].get("availableReplicas", 0)
        return available, sum(pod["metadata"]["name"].startswith(f"{name}-") for pod in place.list("Pod"))


@pytest.mark.alone
def test_first_the_training_operator_is_away_and_then_ours(story, by_itself, deployments, cluster):
    """Nobody fails the evicted job, and the next one cannot be made before its webhook answers again. Later a pod
    vanishes while nobody looks: the training-operator would else fail the job, or not, as it comes. It is back first,
    and fills the slot; what runs there never trains, since the slot has its start record."""
    told = story("unattended").apply(with_arguments(of_one_rank("plain", "unattended"), "--step-seconds", "0.5"))
    told.wait_step(SOON)
    deployments.take(TRAINING_OPERATOR)
    cluster.evict(told.pod(SLOT))
    told.wait(lambda status: status["counts"]["attempts"] == 2, "the next attempt is decided")
    assert cluster.get("PyTorchJob", "unattended-a1") is None
    deployments.bring_back(TRAINING_OPERATOR)
    told.wait_attempt(1)
    pace(told)

    pod = told.pod(SLOT)
    wait_started(told, epoch=2)
    deployments.take(TRAINING_OPERATOR, OURS)
    cluster.delete("Pod", pod, grace=0)
    eventually(lambda: cluster.get("Pod", pod) is None, "the pod is gone", timeout=30)
    deployments.bring_back(TRAINING_OPERATOR)
    eventually(lambda: is_refused(cluster.get("Pod", pod)), "the slot is filled again", timeout=60)
    deployments.bring_back(OURS)
    check_continued(told, "plain", by_itself, cause="EvictionAPI", attempts=3, since=SOON)
    assert [attempt["cause"] for attempt in told.history()] == ["EvictionAPI", "PodReplaced", "Completed"]
    claims = {path.name for path in (told.run_directory / "claims").iterdir()}
    assert len(claims) == 4, "one for each prepare, the last one included"


def is_refused(pod):
    if pod is None:
        return False
    containers = {item["name"]: item["state"] for item in pod["status"].get("containerStatuses", [])}
    ended = containers.get("pytorch", {}).get("terminated", {})
    return ended.get("exitCode") == ExitCode.ATTEMPT_REUSED


def wait_started(told, epoch):
    eventually(Path(told.layout.start(epoch, SLOT)).exists, "the slot has its start record", timeout=60)
