"""The wish to run elsewhere than on the nodes in status.avoidedNodes, beside whatever the template wants."""

from __future__ import annotations

from typing import Any

from sweeprun_operator.api.v1alpha1 import SweepRun

from .given import entries, fields

WEIGHT = 100
"""The most that a preference can have."""
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def avoiding(run: SweepRun, given: Any, path: str) -> dict[str, Any]:
    """`affinity` of a pod, as the part of a pod's spec; empty where nothing is wanted.

    By the name of the node, not by its label kubernetes.io/hostname, which may be another. A requirement on a field may
    hold one value. Raises ValueError where what is given has another shape.
    """
    nodes = [item.node for item in run.status.avoided_nodes]
    affinity = fields(given, path)
    if not nodes:
        return {"affinity": affinity} if affinity else {}
    node = fields(affinity.get("nodeAffinity"), f"{path}.nodeAffinity")
    wish = [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in nodes]
    preferred = entries(node.get(_PREFERRED), f"{path}.nodeAffinity.{_PREFERRED}")
    node[_PREFERRED] = [*preferred, {"weight": WEIGHT, "preference": {"matchFields": wish}}]
    return {"affinity": {**affinity, "nodeAffinity": node}}
