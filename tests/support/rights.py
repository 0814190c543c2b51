"""The operator's service account with the rights that the chart gives it, on a real API server."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from support.cluster import Cluster, Raw
from support.helm import render

RBAC = "/apis/rbac.authorization.k8s.io/v1"
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "Role": RBAC + "/namespaces/{namespace}/roles",
    "RoleBinding": RBAC + "/namespaces/{namespace}/rolebindings",
    "ClusterRole": RBAC + "/clusterroles",
    "ClusterRoleBinding": RBAC + "/clusterrolebindings",
}


def granted(rules: Iterable[Raw]) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of every rule; names that one is bound to are left out."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def kubeconfig_of_operator(cluster: Cluster, directory: Path, *, everywhere: bool = False) -> Path:
    """Installs the chart's account and roles, for the cluster's namespace or for all; a kubeconfig with a token of the
    account."""
    watched = "watch.allNamespaces=true" if everywhere else f"watch.namespaces={{{cluster.namespace}}}"
    for manifest in render(watched, namespace=cluster.namespace):
        path = PATHS.get(manifest["kind"])
        if path is not None:
            namespace = manifest["metadata"].get("namespace", "")
            cluster.call("POST", path.format(namespace=namespace), json=manifest)
    account = PATHS["ServiceAccount"].format(namespace=cluster.namespace)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = cluster.call("POST", f"{account}/sweeprun/token", json=asked)["status"]["token"]
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    made = directory / "kubeconfig"
    made.touch(mode=0o600)
    made.write_text(yaml.safe_dump(config))
    return made
