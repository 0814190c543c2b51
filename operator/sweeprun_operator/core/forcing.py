"""spec.unreachable.policy ForceDelete: pods of a draining attempt on nodes that do not answer are not waited for.

Nothing tells then that their processes have ended. The status says so before anything is deleted, and keeps it until a
prepare has decided: it copies what such a process could still overwrite, and moves the run to another W&B run.
"""

from __future__ import annotations

from collections.abc import Iterable

from sweeprun_operator.api.spec import UnreachablePolicy
from sweeprun_operator.api.status import MAX_FORCED, MAX_SILENT, ForcedDeletion

from . import history
from .draft import Draft
from .observation import PodState
from .plan import ChildKind, Delete


def force(draft: Draft, pods: Iterable[PodState]) -> Draft:
    """A node's time begins when the drain first finds a Terminating pod on it unanswered, by the operator's clock, and
    begins anew when the node has answered meanwhile. It is over after tolerationSeconds, and after the longest grace
    of the pods there."""
    lost = [pod for pod in pods if pod.deleting and pod.node is not None and pod.node in draft.seen.unready_nodes]
    known = draft.current.silent_nodes
    nodes = sorted({pod.node for pod in lost if pod.node is not None})[:MAX_SILENT]
    since = {node: known.get(node, draft.now) for node in nodes}
    if since != known:
        draft = draft.move(silent_nodes=since)
    if draft.spec.unreachable.policy is not UnreachablePolicy.FORCE_DELETE:
        return draft
    due = []
    for node in nodes:
        there = [pod for pod in lost if pod.node == node]
        wait = max(draft.spec.unreachable.toleration_seconds, *(pod.grace_seconds or 0 for pod in there))
        left = wait - draft.seconds_since(since[node])
        if left > 0:
            draft = draft.look_again(left)
        else:
            due += there
    return _delete(draft, due) if due else draft


def is_held(pod: PodState) -> bool:
    """The API server waits for no kubelet any more, but for finalizers."""
    return pod.deleting and pod.grace_seconds == 0


def _delete(draft: Draft, pods: list[PodState]) -> Draft:
    """Said once for each pod, and asked for until the API server has done it."""
    pods = [pod for pod in pods if not is_held(pod)]
    entry = history.newest(draft)
    assert entry is not None, "what drains was decided"
    before = entry.forced or ForcedDeletion(time=draft.now)
    new = [pod for pod in pods if pod.name not in before.pods]
    names = [*before.pods, *(pod.name for pod in new)][:MAX_FORCED]
    nodes = list(dict.fromkeys([*before.nodes, *(pod.node for pod in new if pod.node is not None)]))[:MAX_FORCED]
    if names != before.pods:
        forced = before.model_copy(update={"pods": names, "nodes": nodes})
        draft = history.change_newest(draft, forced=forced).warn("ForceDeleted", _text(new))
    if pods:
        draft = draft.move(drain_forced=True)
    return draft.act(*(Delete(ChildKind.POD, pod.name, pod.uid, force=True) for pod in pods))


def _text(pods: list[PodState]) -> str:
    names = ", ".join(f"{pod.name} on {pod.node}" for pod in pods[:5])
    more = f" and {len(pods) - 5} more" if len(pods) > 5 else ""
    return (
        f"{names}{more}: the node does not answer, and unreachable.policy is ForceDelete. Their processes may still "
        "write: the next attempt reads a copy of the resume point, and logs to another W&B run"
    )
