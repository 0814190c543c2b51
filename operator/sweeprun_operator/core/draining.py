"""The end of an attempt: its workload is deleted, and nothing else happens until all of it is gone.

Absence is read from consistent lists. Deletion by force is an admin's, or asked for by the user in the spec
(`forcing`): an unreachable node may still write.
"""

from __future__ import annotations

from sweeprun_operator.api.status import Interruption, Kind, State

from . import avoiding, finishing, forcing, history, surveys
from .classify import KINDS, disruption_of
from .draft import Draft
from .leftovers import remove_orphans
from .plan import ChildKind, Delete
from .preparing import begin_prepare
from .scene import scene_of
from .witnesses import witnesses

LOOK_SECONDS = 10.0
"""Nodes are not watched: a drain that hangs on one is looked at again."""


def begin(draft: Draft, interruption: Interruption) -> Draft:
    """Write down why, count it, delete the workload: in this order, in one pass."""
    attempt = draft.current.attempt
    draft = history.interrupt(draft, interruption)
    draft = draft.enter(State.DRAINING, interruption=interruption, doubt=None)
    where = f" on node {interruption.node}" if interruption.node else ""
    text = f"attempt {attempt} ended: {interruption.cause}{where}: {interruption.evidence}"
    draft = history.change_newest(draft, pods=witnesses(scene_of(draft.seen), interruption.pod))
    draft = avoiding.judge(draft)
    bad = KINDS[interruption.cause] not in (Kind.COMPLETION, Kind.NEUTRAL)
    draft = draft.warn("Interrupted", text) if bad else draft.tell("Ended", text)
    return surveys.begin(_delete(draft))


def drain(draft: Draft) -> Draft:
    draft = _late_disruption(_delete(draft))
    attempt = draft.current.attempt
    pods = [pod for pod in draft.seen.pods if pod.attempt <= attempt]
    if pods or any(item.owned and item.attempt <= attempt for item in draft.seen.workloads):
        lost = [pod for pod in pods if pod.node and pod.node in draft.seen.unready_nodes]
        silent = sorted({pod.node for pod in lost if pod.node and not forcing.is_held(pod)})
        if silent:
            draft = draft.stuck("NodeUnreachable", _advice(silent))
        elif lost:
            names = ", ".join(pod.name for pod in lost[:5])
            text = f"{names}: deleted by force, and held by finalizers: who set them has to take them away"
            draft = draft.stuck("PodHeld", text)
        return forcing.force(draft, pods).look_again(LOOK_SECONDS)
    return _drained(draft.unstuck().move(drained_time=draft.now, silent_nodes={}))


def _delete(draft: Draft) -> Draft:
    workload = draft.workload
    if workload is not None and workload.owned and not workload.deleting:
        draft = draft.act(Delete(ChildKind.PYTORCHJOB, workload.name, workload.uid))
    return remove_orphans(draft, before=draft.current.attempt + 1)


def _late_disruption(draft: Draft) -> Draft:
    """A polite trainer may have ended well only because it was told to stop: what tells so may come late."""
    if not finishing.seems_complete(draft) or draft.current.disruption is not None:
        return draft
    scene = scene_of(draft.seen)
    struck = next(iter(scene.struck), None)
    return draft if struck is None else draft.move(disruption=disruption_of(scene, struck))


def _drained(draft: Draft) -> Draft:
    if finishing.seems_complete(draft):
        return begin_prepare(draft)
    if draft.current.stopping:
        return finishing.stop(draft)
    return draft.enter(State.HELD, outcome=None) if draft.spec.suspend else begin_prepare(draft)


def _advice(nodes: list[str]) -> str:
    names = ", ".join(nodes[:5])
    return (
        f"node(s) {names} do not answer, and pods of the ended attempt may still write there. It goes on by itself "
        "once the node is back or its Node object is deleted; if the machine is known to be off: "
        f"kubectl taint node {nodes[0]} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    )
