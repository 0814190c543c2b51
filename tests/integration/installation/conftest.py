"""The chart as Helm installs it, on a real API server: its policies judge, its roles bind. No pod runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import requests

from support.cluster import Cluster, RefusedError, eventually
from support.control_plane import ControlPlane
from support.control_plane.definitions import serve
from support.helm import install
from support.manifests import make_container, make_pod, make_sweeprun, make_template
from support.monitoring import definitions

SYSTEM, RUNS = "sweeprun-system", "sweeps"
"""The namespaces that the documents speak of."""
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
EVERYTHING = (
    "metrics.serviceMonitor.enabled=true",
    "metrics.rules.enabled=true",
    "metrics.rules.runbookUrl=https://example.test/runbooks/",
    "metrics.dashboards.enabled=true",
    "networkPolicy.operator.enabled=true",
    "networkPolicy.runs.enabled=true",
    "admission.serviceAccounts={trainer}",
)


@dataclass(frozen=True)
class Installed:
    plane: ControlPlane
    team: Cluster
    """In a namespace that the operator serves."""
    system: Cluster
    """In the operator's own namespace, which it serves too."""
    notes: str


@pytest.fixture(scope="session")
def installed(control_plane: ControlPlane) -> Installed:
    """Everything that can be chosen, for two namespaces; the CRD is there already."""
    team, system = control_plane.new_namespace("team"), control_plane.cluster(SYSTEM)
    for definition in definitions():
        serve(system, definition)
    control_plane.cluster().ensure({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RUNS}})
    watched = f"watch.namespaces={{{team.namespace},{SYSTEM},{RUNS}}}"
    notes = install(control_plane.kubeconfig, watched, "crds.enabled=false", *EVERYTHING, namespace=SYSTEM)
    wait_for_policies(team)
    wait_for_policies(system)
    return Installed(control_plane, team, system, notes)


def wait_for_policies(cluster: Cluster) -> None:
    """The API server takes a moment to hear of them."""
    forbidden = make_sweeprun(template=make_template(pod=make_pod(make_container(), hostNetwork=True)))

    def judged() -> bool:
        try:
            dry_create(cluster, forbidden)
        except RefusedError as refused:
            return "hostNetwork" in refused.message
        return False

    eventually(judged, "the policies of the chart are in force", timeout=30, every=0.05)


def dry_create(cluster: Cluster, manifest: dict) -> dict:
    return cluster.call("POST", cluster._path("SweepRun"), json=manifest, params={"dryRun": "All"})


@pytest.fixture
def person(installed: Installed) -> Callable[..., Cluster]:
    """Somebody with the chart's role of editors in a namespace, and the right to create some workloads."""

    def be(name: str, *may_create: tuple[str, str], cluster: Cluster | None = None) -> Cluster:
        where = cluster or installed.team
        subject = [{"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}]
        rules = [{"apiGroups": [group], "resources": [kind], "verbs": ["create"]} for group, kind in may_create]
        path = RBAC.format(namespace=where.namespace)
        where.call("POST", f"{path}/roles", json={"metadata": {"name": name}, "rules": rules})
        for kind, role in (("Role", name), ("ClusterRole", f"{SYSTEM}:sweeprun:editor")):
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}
            binding = {"metadata": {"name": f"{name}-{kind.lower()}"}, "subjects": subject, "roleRef": reference}
            where.call("POST", f"{path}/rolebindings", json=binding)
        session = requests.Session()
        session.trust_env = False
        session.verify = where.session.verify
        session.headers.update({**where.session.headers, "Impersonate-User": name})
        return replace(where, session=session)

    return be
