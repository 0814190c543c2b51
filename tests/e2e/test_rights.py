"""What the operator was seen to ask for in all the other stories, beside what its roles let it ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.cluster import Cluster, Raw
from support.nodes import execute
from support.rights import RBAC, granted

CONTROL_PLANE = "sweeprun-control-plane"
AUDIT = "/var/log/kubernetes/audit.log"
"""hack/audit.yaml says of whom."""
ACCOUNT = {"kind": "ServiceAccount", "name": "sweeprun", "namespace": "sweeprun-system"}
SELDOM = {
    "update sweepruns/finalizers.sweeprun.dev": "asked for by the API server, when a child names its owner",
    "get pytorchjobs.kubeflow.org": "whose it is that has the name of a child which is to be made",
    "get jobs.batch": "the same",
    "create pods": "tried, where a Job has no pod",
}
"""Not in every round of stories; tests/integration/operator/test_rights.py has them all."""


def shown(group: str, resource: str, verb: str) -> str:
    return f"{verb} {resource}" + (f".{group}" if group else "")


def asked_for(cluster: Cluster) -> Iterator[tuple[tuple[str, str, str], int, str]]:
    """Each call of the operator on an object or a kind: what it needs, the status of the answer, and its address."""
    for line in execute(cluster, "docker", "exec", CONTROL_PLANE, "cat", AUDIT).splitlines():
        event = json.loads(line)
        place = event.get("objectRef", {})
        if "resource" in place:
            resource = "/".join(place[name] for name in ("resource", "subresource") if place.get(name))
            right = (place.get("apiGroup", ""), resource, event["verb"])
            yield right, event.get("responseStatus", {}).get("code", 0), event["requestURI"]


def rules_of_operator(cluster: Cluster) -> Iterator[Raw]:
    for bindings, roles in (("rolebindings", "roles"), ("clusterrolebindings", "clusterroles")):
        for binding in cluster.call("GET", f"{RBAC}/{bindings}")["items"]:
            if ACCOUNT in binding.get("subjects", []):
                namespace = binding["metadata"].get("namespace")
                place = f"{RBAC}/namespaces/{namespace}/{roles}" if namespace else f"{RBAC}/{roles}"
                yield from cluster.call("GET", f"{place}/{binding['roleRef']['name']}")["rules"]


@pytest.mark.afterwards
def test_what_is_granted_was_asked_for_and_nothing_was_refused(cluster):
    calls = list(asked_for(cluster))
    assert calls, "nothing was written down: make e2e-down, make e2e-up"
    assert sorted({f"{shown(*right)}: {address}" for right, code, address in calls if code == 403}) == []
    idle = {shown(*right) for right in granted(rules_of_operator(cluster)) - {right for right, _, _ in calls}}
    assert idle <= SELDOM.keys()
