"""Kueue as a process. Its webhooks are those of its release, reached through a Service that names the loopback."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from support.cluster import Cluster, Raw, eventually
from support.control_plane import ControlPlane
from support.control_plane.definitions import module, serve, version
from support.control_plane.programs import CACHE, Process, program
from support.ports import HOST, free_ports

SYSTEM = "kueue-system"
SERVICE = "kueue-webhook-service"
SECRET = "kueue-webhook-server-cert"
MANAGED = {"kueue": "manages-everything"}
"""Labels of namespaces whose jobs Kueue manages even where they name no queue."""
START_SECONDS = 120

_FRAMEWORKS = ("batch/job", "kubeflow.org/pytorchjob")
_RESOURCES = frozenset({"jobs", "pytorchjobs", "clusterqueues", "resourceflavors", "workloads", "cohorts"})
_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"
_PATHS = {
    "MutatingWebhookConfiguration": f"{_WEBHOOKS}/mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": f"{_WEBHOOKS}/validatingwebhookconfigurations",
}


@dataclass(frozen=True)
class Kueue:
    plane: ControlPlane
    process: Process


@contextlib.contextmanager
def running(plane: ControlPlane) -> Iterator[Kueue]:
    """Raises ControlPlaneError where the program is missing or does not start. Nothing else may use this control plane
    without Kueue: its webhooks would not answer any more."""
    with tempfile.TemporaryDirectory(prefix="sweeprun-kueue-") as name:
        directory = Path(name)
        webhook_port, health_port = free_ports(2)
        cluster = plane.cluster(SYSTEM)
        _install(cluster, webhook_port)
        certificates = directory / "certificates"
        certificates.mkdir()
        settings = directory / "configuration.yaml"
        settings.write_text(yaml.safe_dump(_configuration(certificates, webhook_port, health_port)))
        process = Process("kueue", f"--config={settings}", f"--kubeconfig={plane.kubeconfig}", directory=directory)
        try:
            _mount_secret(cluster, process, certificates)
            _wait_ready(process, health_port)
            yield Kueue(plane, process)
        finally:
            process.stop()


def _configuration(certificates: Path, webhook_port: int, health_port: int) -> Raw:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta1",
        "kind": "Configuration",
        "namespace": SYSTEM,
        "health": {"healthProbeBindAddress": f"{HOST}:{health_port}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": HOST, "port": webhook_port, "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        "manageJobsWithoutQueueName": True,
        "managedJobsNamespaceSelector": {"matchLabels": MANAGED},
        "integrations": {"frameworks": list(_FRAMEWORKS)},
        # Its API for pending workloads wants a port of its own.
        "featureGates": {"VisibilityOnDemand": False},
    }


def _install(cluster: Cluster, port: int) -> None:
    found = list(yaml.load_all(_manifests().read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    cluster.ensure({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}})
    spec = {"type": "ExternalName", "externalName": HOST}
    cluster.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE}, "spec": spec})
    for manifest in found:
        if manifest["kind"] == "CustomResourceDefinition":
            serve(cluster, manifest)
    for manifest in found:
        if manifest["kind"] in _PATHS:
            cluster.call("POST", _PATHS[manifest["kind"]], json=_of_ours(manifest, port))


def _of_ours(manifest: Raw, port: int) -> Raw:
    """The webhooks of the kinds that this Kueue manages."""
    kept = [one for one in manifest["webhooks"] if any(_RESOURCES & set(rule["resources"]) for rule in one["rules"])]
    for one in kept:
        one["clientConfig"]["service"]["port"] = port
    return {**manifest, "webhooks": kept}


def _manifests() -> Path:
    """As the release's own kustomization renders them; kept in the cache."""
    number = version("KUEUE_VERSION")
    kept = CACHE / "manifests" / f"kueue-v{number}.yaml"
    if not kept.exists():
        source = module("sigs.k8s.io/kueue", number) / "config" / "default"
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        with partial.open("wb") as file:
            subprocess.run([str(program("kubectl")), "kustomize", str(source)], stdout=file, check=True)
        partial.rename(kept)
    return kept


def _mount_secret(cluster: Cluster, process: Process, directory: Path) -> None:
    """The kubelet's part: Kueue makes its certificate, and waits until it finds it in its folder."""

    def made() -> dict[str, Any] | None:
        process.check()
        data: dict[str, Any] = (cluster.get("Secret", SECRET) or {}).get("data") or {}
        return data if "tls.crt" in data else None

    for name, content in eventually(made, "Kueue has made its certificate", timeout=START_SECONDS).items():
        (directory / name).write_bytes(base64.b64decode(content))


def _wait_ready(process: Process, port: int) -> None:
    def ready() -> bool:
        process.check()
        try:
            return requests.get(f"http://{HOST}:{port}/readyz", timeout=5, proxies={"http": ""}).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    try:
        eventually(ready, "Kueue is ready", timeout=START_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{process.tail()}") from None
