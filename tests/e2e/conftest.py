"""Real everything: a kind cluster, the real training-operator, our images and chart, torch pods, the real wandb.

`make e2e-up` makes the cluster and installs the chart; these tests use what stands there and say so where it does not.
The volume is a host directory that both worker nodes mount; the tests look into it, and damage it, from outside.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster, Raw, eventually
from support.nodes import Node
from support.story import Story, example, of_one_rank
from support.wandb_server.journal import Journal, Run
from support.wandb_server.manifest import manifests as wandb_manifests
from support.wandb_server.manifest import service_url

CACHE = Path(os.environ.get("SWEEPRUN_CACHE", Path.home() / ".cache" / "sweeprun")) / "cluster"
NAMESPACE = "sweeps"
TRAINER_IMAGE = os.environ.get("SWEEPRUN_TRAINER_IMAGE", "sweeprun/trainer-example:dev")
USER = 1000
WANDB_ENTITY = "me"
WANDB_PROJECT = "digits"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The host side of /mnt/shared of the workers."""
    return CACHE / "shared"


@pytest.fixture(scope="session")
def cluster(shared: Path) -> Cluster:
    kubeconfig = Path(os.environ.get("SWEEPRUN_E2E_KUBECONFIG", CACHE / "kubeconfig"))
    assert kubeconfig.exists(), f"{kubeconfig} is not there: run `make e2e-up` first"
    cluster = Cluster.connect(kubeconfig, namespace=NAMESPACE)
    restricted = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    cluster.ensure({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": restricted}})
    make_volume(cluster, shared, "sweeps")
    for manifest in [*wandb_manifests(NAMESPACE, TRAINER_IMAGE, claim="sweeps"), *wandb_access()]:
        cluster.ensure(manifest)
    eventually(
        lambda: (cluster.get("Deployment", "wandb") or {}).get("status", {}).get("availableReplicas"),
        "the W&B server is available",
        timeout=120,
    )
    return cluster


def wandb_access() -> list[Raw]:
    """What the example's manifest asks for, where people have it."""
    url = {"metadata": {"name": "wandb-server"}, "data": {"url": service_url(NAMESPACE)}}
    key = {"metadata": {"name": "wandb-key"}, "stringData": {"key": "0" * 40}}
    return [{"apiVersion": "v1", "kind": "ConfigMap", **url}, {"apiVersion": "v1", "kind": "Secret", **key}]


def make_volume(cluster: Cluster, shared: Path, name: str, *, mode: str = "ReadWriteMany", owner: int = USER) -> Path:
    """A PersistentVolume on the shared host directory, and the claim `name` bound to it."""
    directory = shared / name
    directory.mkdir(exist_ok=True)
    os.chown(directory, owner, owner)
    directory.chmod(0o755)
    cluster.ensure(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{NAMESPACE}-{name}"},
            "spec": {
                "capacity": {"storage": "10Gi"},
                "accessModes": [mode],
                "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": f"/mnt/shared/{name}"},
                "claimRef": {"namespace": NAMESPACE, "name": name},
            },
        }
    )
    cluster.ensure(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {
                "accessModes": [mode],
                "storageClassName": "",
                "volumeName": f"{NAMESPACE}-{name}",
                "resources": {"requests": {"storage": "10Gi"}},
            },
        }
    )
    return directory


@pytest.fixture
def volume_of(cluster: Cluster, shared: Path) -> Callable[..., Path]:
    """Makes another volume and its claim."""

    def make(name: str, **options: object) -> Path:
        return make_volume(cluster, shared, name, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def story(cluster: Cluster, shared: Path) -> Iterator[Callable[[str], Story]]:
    """Stories by name; their objects are deleted after the test, what they left on the volume stays."""
    names: list[str] = []

    def begin(name: str, *, volume: str = "sweeps") -> Story:
        names.append(name)
        remove(cluster, name)
        subdirectory = "experiments" if volume == "sweeps" else ""
        told = Story(cluster=cluster, name=name, volume=shared / volume / subdirectory)
        # what an earlier session left incomplete would be adopted
        shutil.rmtree(told.volume / "sweep" / name, ignore_errors=True)
        return told

    yield begin
    for name in names:
        cluster.delete("SweepRun", name)


def remove(cluster: Cluster, name: str) -> None:
    """Delete an object of an earlier session, and wait until its pods are gone as well."""
    run = cluster.get("SweepRun", name)
    if run is None:
        return
    cluster.delete("SweepRun", name)
    selector = f"sweeprun.dev/uid={run['metadata']['uid']}"
    eventually(
        lambda: not cluster.get("SweepRun", name) and not cluster.list("Pod", selector=selector),
        f"the old {name} and its pods are gone",
        timeout=120,
    )


@pytest.fixture(scope="session")
def journal(cluster: Cluster) -> Callable[[str], Run]:
    """What the W&B server has seen of a run until now."""

    def of(run_id: str) -> Run:
        seen = Journal(cluster.proxy("wandb", 8080, "/journal?events=0"))
        return seen.run(WANDB_ENTITY, WANDB_PROJECT, run_id)

    return of


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, shared: Path) -> Callable[[str], Story]:
    """The finished run that nothing interrupted, of each kind: made once, compared with by all."""

    def of(kind: str) -> Story:
        name = f"undisturbed-{kind}"
        cluster.ensure(example(kind, name))
        told = Story(cluster=cluster, name=name, volume=shared / "sweeps" / "experiments")
        told.wait_complete(timeout=400)
        return told

    return of


@pytest.fixture
def by_itself(cluster: Cluster, shared: Path) -> Callable[[str], Story]:
    """The finished run of one rank that nothing interrupted; both kinds end in the same state."""
    name = "undisturbed-alone"
    cluster.ensure(of_one_rank("library", name))
    told = Story(cluster=cluster, name=name, volume=shared / "sweeps" / "experiments")

    def of(_kind: str) -> Story:
        told.wait_complete()
        return told

    return of


@pytest.fixture
def node(cluster: Cluster) -> Iterator[Node]:
    """The one that a story may lose."""
    found = Node.mortal(cluster)
    found.restore()
    yield found
    found.restore()


def trainer_pods(cluster: Cluster, run: Raw) -> list[Raw]:
    selector = f"sweeprun.dev/uid={run['metadata']['uid']},sweeprun.dev/role=attempt"
    return cluster.list("Pod", selector=selector)
