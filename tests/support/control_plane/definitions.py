"""The CRDs that the tests need: ours from the repository, PyTorchJob's from training-operator's Go module."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import yaml

from support.cluster import Cluster, Raw, RefusedError, eventually

from .programs import CACHE, ControlPlaneError

ROOT = Path(__file__).parents[3]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PYTORCHJOBS = "kubeflow.org_pytorchjobs.yaml"


def install(cluster: Cluster) -> None:
    """Both CRDs, served when this returns."""
    for path in [*sorted((ROOT / "crds").glob("*.yaml")), pytorchjobs()]:
        serve(cluster, _load(path))


def serve(cluster: Cluster, definition: Raw) -> None:
    cluster.call("POST", CRDS, json=definition)
    _wait_served(cluster, definition)


def pytorchjobs() -> Path:
    """The CRD as training-operator ships it, kept in the cache. Raises ControlPlaneError where it cannot be had."""
    number = version("TRAINING_OPERATOR_VERSION")
    kept = CACHE / "manifests" / f"training-operator-v{number}" / PYTORCHJOBS
    if not kept.exists():
        source = module("github.com/kubeflow/training-operator", number) / "manifests" / "base" / "crds" / PYTORCHJOBS
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        shutil.copyfile(source, partial)
        partial.rename(kept)
    return kept


def version(name: str) -> str:
    """As hack/versions.env has it."""
    found = re.search(rf"^{name}=(\S+)$", (ROOT / "hack" / "versions.env").read_text(), re.MULTILINE)
    if found is None:
        raise ControlPlaneError(f"hack/versions.env names no {name}")
    return found.group(1)


def module(path: str, number: str) -> Path:
    """Where the source of a Go module lies."""
    if shutil.which("go") is None:
        raise ControlPlaneError(f"go is not on PATH: CRDs come from the Go module {path}")
    answer = subprocess.run(
        ["go", "mod", "download", "-json", f"{path}@v{number}"],
        capture_output=True,
        text=True,
        cwd=CACHE,  # outside of any module, whose go.mod would have a say
    )
    if answer.returncode != 0:
        raise ControlPlaneError(f"go mod download failed: {answer.stdout}{answer.stderr}")
    return Path(json.loads(answer.stdout)["Dir"])


def _load(path: Path) -> Raw:
    with path.open() as file:
        # PyTorchJob's CRD has 600 kB: the C loader reads it ten times as fast.
        definition: Raw = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return definition


def _wait_served(cluster: Cluster, definition: Raw) -> None:
    """Established is not enough: for a moment the server still answers 404, then 429 while it fills its cache."""
    name, spec = definition["metadata"]["name"], definition["spec"]
    resources = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"

    def served() -> bool:
        status = cluster.call("GET", f"{CRDS}/{name}").get("status", {})
        for condition in status.get("conditions") or []:
            if condition["type"] == "NonStructuralSchema" and condition["status"] == "True":
                raise ControlPlaneError(f"{name}: {condition['message']}")
        try:
            cluster.call("GET", resources, params={"limit": 1})
        except RefusedError as refused:
            if refused.code in (404, 429):
                return False
            raise
        return True

    eventually(served, f"{name} is served", timeout=30, every=0.05)
