"""Nodes on which this run was lost repeatedly, by the node's fault: the next attempts and prepares rather go elsewhere.

The rule, from history alone. A node is avoided once LOSSES attempts of the run ended on it by its fault: it was gone or
did not answer, its kubelet ended, refused or never started a pod, or a taint that tolerates no pods was put on it. What
people and schedulers do (drain, Eviction API, preemption) is no fault of the node, nor is the program's own error.
It ends AVOID_SECONDS after the last loss, or when an attempt that began after it progressed and did not end there: the
run can live elsewhere, and whoever mends a node need not tell us. It is a wish, never a demand: with no other node
free, pods are scheduled there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sweeprun_operator.api.status import MAX_AVOIDED, Attempt, AvoidedNode, Cause

from .draft import Draft

LOSSES = 2
AVOID_SECONDS = 6 * 3600
FAULTS = frozenset({Cause.TAINT, Cause.POD_GC, Cause.KUBELET, Cause.NEVER_STARTED})


def avoided(history: Sequence[Attempt], now: datetime) -> list[AvoidedNode]:
    """Of what `history`, oldest first, tells; the node of the latest loss first."""
    losses: dict[str, list[Attempt]] = {}
    for position, entry in enumerate(history):
        if _progressed(history, position):
            losses = {node: found for node, found in losses.items() if len(found) < LOSSES or node == entry.node}
        if entry.node is not None and entry.cause in FAULTS:
            losses.setdefault(entry.node, []).append(entry)
    found = [_avoided(node, entries) for node, entries in losses.items() if len(entries) >= LOSSES]
    current = [item for item in found if item.until > now]
    return sorted(current, key=lambda item: item.until, reverse=True)[:MAX_AVOIDED]


def _progressed(history: Sequence[Attempt], position: int) -> bool:
    """What came after it went on from a later step than it did itself."""
    if position + 1 >= len(history):
        return False
    return (history[position + 1].from_step or 0) > (history[position].from_step or 0)


def _avoided(node: str, entries: list[Attempt]) -> AvoidedNode:
    last = entries[-1]
    assert last.end_time is not None, "an attempt with a cause has ended"
    causes = ", ".join(f"attempt {entry.attempt}: {entry.cause}" for entry in entries)
    until = last.end_time + timedelta(seconds=AVOID_SECONDS)
    return AvoidedNode(node=node, losses=len(entries), reason=causes[:256], until=until)


def judge(draft: Draft) -> Draft:
    """Bring the status up to date; what is new is told."""
    nodes = avoided(draft.status.history, draft.now)
    known = {item.node for item in draft.status.avoided_nodes}
    draft = draft.update(avoided_nodes=nodes)
    for item in nodes:
        if item.node not in known:
            text = f"{item.losses} attempts were lost on node {item.node} ({item.reason}): the next ones avoid it"
            draft = draft.warn("NodeAvoided", f"{text} until {item.until:%Y-%m-%d %H:%M} UTC, or until one progresses")
    return draft
