"""Commands as they stand in the documents: on a real API server with a run in it, and on this machine.

What only a cluster does is played: the controller of Deployments says that the operator is available. Logs are those of
pods that no node has yet: empty, but found.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support.cluster import Cluster, Raw, RefusedError
from support.control_plane import ControlPlane, running
from support.documents import DOCUMENTS, ROOT, Command, Proof, blocks, commands
from support.helm import helm
from support.manifests import make_sweeprun, merged
from support.shown import shown_status
from sweeprun_operator.api.v1alpha1 import KIND

NAMESPACE, OPERATOR = "sweeps", "sweeprun-system"
NODE = "gpu-7"
WATCH_SECONDS = 4
QUICKSTART = ROOT / "docs" / "quickstart.md"


def told(proof: Proof) -> list[Path]:
    """Documents with such commands. Runbooks have a world of their own: tests/integration/installation."""
    others = [path for path in DOCUMENTS if path.parent.name != "runbooks"]
    return [path for path in others if any(one.proof is proof for one in commands(path))]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """One of its own: the documents install, upgrade and uninstall the chart."""
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def world(plane) -> Iterator[Cluster]:
    """A run that was evicted once, its pods, and a node; the client is in the run's namespace."""
    cluster = plane.cluster(NAMESPACE)
    for name in (NAMESPACE, OPERATOR):
        cluster.ensure({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    cluster.ensure({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    run = yaml.safe_load((ROOT / "examples" / "digits" / "sweeprun.yaml").read_text())
    made = cluster.create(run)
    cluster.patch(KIND, "digits", {"status": shown_status()}, subresource="/status")
    owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "controller": True, "name": "digits-a0"}
    for role, name, node in (("attempt", "digits-a0-worker-0", NODE), ("prepare", "digits-p1-x", None)):
        labels = {"sweeprun.dev/name": "digits", "sweeprun.dev/role": role}
        owners = [{**owner, "uid": made["metadata"]["uid"]}]
        cluster.create(pod(name, labels, node=node, owners=owners))
    cluster.in_namespace(OPERATOR).create(
        pod("sweeprun-0", {"app.kubernetes.io/name": "sweeprun", "app.kubernetes.io/instance": "sweeprun"})
    )
    ended = threading.Event()
    player = threading.Thread(target=play_deployments, args=(plane.cluster(OPERATOR), ended))
    player.start()
    yield cluster
    ended.set()
    player.join()


def pod(name: str, labels: Raw, *, node: str | None = None, owners: list[Raw] | None = None) -> Raw:
    metadata = {"name": name, "labels": labels, "ownerReferences": owners or []}
    container = {"name": "pytorch", "image": "registry.test/trainer:1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": node, "containers": [container]},
    }


def play_deployments(cluster: Cluster, ended: threading.Event) -> None:
    """Every Deployment has what it asks for."""
    while not ended.wait(0.3):
        for one in cluster.list("Deployment"):
            generation = one["metadata"]["generation"]
            if one.get("status", {}).get("observedGeneration") != generation:
                ready = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
                status = {"observedGeneration": generation, **ready}
                cluster.patch("Deployment", one["metadata"]["name"], {"status": status}, subresource="/status")


def runnable(command: Command) -> str:
    """The command for a shell that stops at the first one that fails; what it cannot have here is left out."""
    text = command.text
    words = command.words
    if "helm" in words[:1] and words[1] in ("upgrade", "install"):
        text += " --set crds.enabled=false"  # it is there already, and not Helm's
    elif words[:2] == ["kubectl", "drain"]:
        text += " --dry-run=server"
    if "-w" in words or "watch" in words[:2]:
        return f"timeout {WATCH_SECONDS} {text} && exit 1 || [ $? = 124 ]"
    return text


@pytest.mark.parametrize("document", told(Proof.CLUSTER), ids=lambda path: path.name)
def test_documented_commands_run_against_an_api_server(document, world, tmp_path):
    for name in ("examples", "charts", "hack"):
        (tmp_path / name).symlink_to(ROOT / name)
    lines = ["set -uo pipefail"]
    for one in commands(document):
        if one.proof is Proof.CLUSTER:
            lines += [f"echo {shlex.quote(f'== {one.text}')} >&2", f"{runnable(one)} || exit 1"]
    path = ":".join([str(Path(sys.executable).parent), str(helm().parent), os.environ["PATH"]])
    environment = {**os.environ, "KUBECONFIG": str(world.kubeconfig), "PATH": path, "HOME": str(tmp_path)}
    said = subprocess.run(
        ["bash", "-c", "\n".join(lines)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert said.returncode == 0, said.stderr[-3000:]


@pytest.mark.parametrize("block", [pytest.param(one, id=one.where) for one in blocks() if one.language == "yaml"])
def test_documented_manifests_are_taken_by_an_api_server(block, world):
    for manifest in yaml.safe_load_all(block.text):
        whole = manifest if "kind" in manifest else merged(make_sweeprun(), manifest)
        whole["metadata"] = {"name": "documented", **whole.get("metadata", {})}
        world.create({**whole, "metadata": {**whole["metadata"], "name": "documented"}}, dry_run=True)


def test_a_manifest_with_an_unknown_field_is_refused(world):
    with pytest.raises(RefusedError, match="storag"):
        world.create(make_sweeprun(storag={}), dry_run=True)


def test_the_script_of_the_quickstart_survives_what_the_quickstart_does_to_it(tmp_path):
    for block in blocks(QUICKSTART):
        if block.title is not None:
            (tmp_path / block.title).write_text(block.text)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    said = {}
    for one in commands(QUICKSTART):
        if one.proof is Proof.LOCAL:
            ran = subprocess.run(
                ["bash", "-c", one.text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
            )
            said[one.text] = ran.stdout
            assert ran.returncode == 0, f"{one.text}: {ran.stdout[-2000:]}{ran.stderr[-1000:]}"
    evicted, corrupted, inspected = said.values()
    assert "1 resume, 0 restarts" in evicted
    assert "1 refused" in corrupted
    assert "complete" in inspected
