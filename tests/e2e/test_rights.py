"""What the operator was seen to ask for in all the other stories, beside what its roles let it ask for."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import NamedTuple

import pytest

from support.cluster import Cluster
from support.nodes import execute
from support.rights import RBAC, granted

CONTROL_PLANE = "sweeprun-control-plane"
AUDIT = "/var/log/kubernetes/audit.log"
"""hack/audit.yaml says of whom."""
ACCOUNT = {"kind": "ServiceAccount", "name": "sweeprun", "namespace": "sweeprun-system"}
BINDINGS = {"rolebindings": "roles", "clusterrolebindings": "clusterroles"}
Place = tuple[str | None, str]
"""Namespace, where it has one, and name."""
SELDOM = {
    "update sweepruns/finalizers.sweeprun.dev": "asked for by the API server, when a child names its owner",
    "get pytorchjobs.kubeflow.org": "whose it is that has the name of a child which is to be made",
    "get jobs.batch": "the same",
    "create pods": "tried, where a Job has no pod",
}
"""Not in every round of stories; tests/integration/operator/test_rights.py has them all."""


def shown(group: str, resource: str, verb: str) -> str:
    return f"{verb} {resource}" + (f".{group}" if group else "")


class Asked(NamedTuple):
    """A call of the operator on an object or a kind."""

    right: tuple[str, str, str]
    """It needs: (group, resource, verb)."""
    code: int
    """Of the answer."""
    address: str
    bound: bool
    """The chart was installed: an operator that is leaving may still ask when its rights are gone."""


def asked_for(cluster: Cluster, bindings: Collection[Place]) -> Iterator[Asked]:
    away: set[Place] = set()
    for line in execute(cluster, "docker", "exec", CONTROL_PLANE, "cat", AUDIT).splitlines():
        event = json.loads(line)
        about = event.get("objectRef", {})
        place = (about.get("namespace"), about.get("name"))
        if about.get("resource") in BINDINGS:
            (away.add if event["verb"] == "delete" else away.discard)(place)
        elif "resource" in about:
            resource = "/".join(about[name] for name in ("resource", "subresource") if about.get(name))
            right = (about.get("apiGroup", ""), resource, event["verb"])
            code = event.get("responseStatus", {}).get("code", 0)
            yield Asked(right, code, event["requestURI"], bound=away.isdisjoint(bindings))


def bindings_of_operator(cluster: Cluster) -> dict[Place, str]:
    """And the path of the role of each."""
    found = {}
    for bindings, roles in BINDINGS.items():
        for binding in cluster.call("GET", f"{RBAC}/{bindings}")["items"]:
            if ACCOUNT in binding.get("subjects", []):
                namespace = binding["metadata"].get("namespace")
                root = f"{RBAC}/namespaces/{namespace}/{roles}" if namespace else f"{RBAC}/{roles}"
                found[namespace, binding["metadata"]["name"]] = f"{root}/{binding['roleRef']['name']}"
    return found


@pytest.mark.afterwards
def test_what_is_granted_was_asked_for_and_nothing_was_refused(cluster):
    bindings = bindings_of_operator(cluster)
    calls = list(asked_for(cluster, bindings))
    assert calls, "nothing was written down: make e2e-down, make e2e-up"
    assert sorted({f"{shown(*call.right)}: {call.address}" for call in calls if call.code == 403 and call.bound}) == []
    rules = [rule for path in bindings.values() for rule in cluster.call("GET", path)["rules"]]
    idle = {shown(*right) for right in granted(rules) - {call.right for call in calls}}
    assert idle <= SELDOM.keys()
