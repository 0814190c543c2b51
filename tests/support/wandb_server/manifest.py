"""The test server in a cluster: its files in a ConfigMap, a Deployment of any image with a Python, a Service."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Manifest = dict[str, Any]

FILES = ("server.py", "state.py")
USER = 1000
CODE, JOURNAL = "/opt/wandb-server", "/var/lib/wandb-server"


def service_url(namespace: str, *, name: str = "wandb", port: int = 8080) -> str:
    """What pods of the cluster take for WANDB_BASE_URL."""
    return f"http://{name}.{namespace}.svc:{port}"


def proxy_path(namespace: str, *, name: str = "wandb", port: int = 8080) -> str:
    """Where the API server passes on a request: `kubectl get --raw` of it gives the journal."""
    return f"/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy/journal"


def manifests(
    namespace: str,
    image: str,
    *,
    name: str = "wandb",
    port: int = 8080,
    python: str = "python3",
    claim: str | None = None,
    node_selector: Mapping[str, str] | None = None,
) -> list[Manifest]:
    """Everything to apply, in its order.

    The journal survives a restarted container. Where the pod itself may go (a drained node), give the name of a
    PersistentVolumeClaim in `claim`, or keep the pod off that node with `node_selector`.
    """
    files = {file: Path(__file__).with_name(file).read_text(encoding="utf-8") for file in FILES}
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": dict(node_selector or {}),
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(image, python, port)],
        "volumes": [
            {"name": "code", "configMap": {"name": name}},
            {"name": "journal", **({"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}})},
        ],
    }
    digest = hashlib.sha256("".join(files.values()).encode()).hexdigest()
    template = {"metadata": {"labels": {"app": name}, "annotations": {"code-digest": digest}}, "spec": pod}
    deployment = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},  # two servers would write one journal
        "selector": {"matchLabels": {"app": name}},
        "template": template,
    }
    service = {"selector": {"app": name}, "ports": [{"name": "http", "port": port, "targetPort": "http"}]}
    return [
        _object("v1", "ConfigMap", namespace, name, data=files),
        _object("apps/v1", "Deployment", namespace, name, spec=deployment),
        _object("v1", "Service", namespace, name, spec=service),
    ]


def _object(api_version: str, kind: str, namespace: str, name: str, **content: Any) -> Manifest:
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def _container(image: str, python: str, port: int) -> Manifest:
    arguments = ["--host", "0.0.0.0", "--port", str(port), "--journal", JOURNAL]
    return {
        "name": "server",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [python, f"{CODE}/server.py", *arguments],
        "env": [{"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}],  # the code's mount is read-only
        "ports": [{"name": "http", "containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "code", "mountPath": CODE, "readOnly": True},
            {"name": "journal", "mountPath": JOURNAL},
        ],
    }
