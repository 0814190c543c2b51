"""How long pods stay bound to a node that does not answer."""

from __future__ import annotations

from typing import Any

from sweeprun_operator.api.template import mapping

_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def leaving_lost_nodes(given: list[Any], seconds: int) -> list[Any]:
    """Kubernetes' own 300 s make a lost node cost six minutes. The first toleration that matches a taint counts: ours
    come first, or one without an end would keep the pod there for ever. One that sets its own time is left alone."""
    own = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
        for key in _NODE_TAINTS
        if not any(_sets_time(item, key) for item in given)
    ]
    return [*own, *given]


def _sets_time(toleration: Any, key: str) -> bool:
    """A toleration without a key is for all of them."""
    item = mapping(toleration)
    matches = item.get("key") in (None, "", key) and item.get("effect") in (None, "", "NoExecute")
    return matches and item.get("tolerationSeconds") is not None
