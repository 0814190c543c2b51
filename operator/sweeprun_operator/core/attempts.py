"""A decided attempt: its workload is made, starts, runs, and is watched until it ends."""

from __future__ import annotations

from datetime import datetime, timedelta

from sweeprun_operator.api.status import MAX_POD_UIDS, Cause, ConditionType, Interruption, State

from . import draining, history, refusals
from .classify import classify, disruption_of
from .draft import Draft
from .leftovers import are_gone
from .observation import PodPhase
from .plan import ChildKind, Create
from .scene import Scene, scene_of
from .verdicts import Ended, InDoubt

WAIT_SECONDS = 5.0


def start(draft: Draft) -> Draft:
    """Make the workload of the decided attempt, from the template as it is now."""
    if not draft.accepted:
        return draft
    if draft.children.replicas(draft.run) != draft.current.replicas:
        # prepare sealed the slots of another template: completion could never be judged by them
        text = "the template's replicas changed before the attempt began"
        return draining.begin(draft, _asked(draft, Cause.RETRIED, text))
    if not are_gone(draft):
        return draft.look_again(WAIT_SECONDS)
    template_hash = draft.children.template_hash(draft.run)
    if template_hash != draft.current.template_hash:
        draft = history.change_newest(draft.move(template_hash=template_hash), template_hash=template_hash)
    if draft.current.state is not State.STARTING:
        draft = draft.enter(State.STARTING, not_before=None)
    draft = draft.unstuck("NameTaken")
    if draft.seen.refusal is not None:
        draft = refusals.show(draft, draft.seen.refusal)
    return draft.act(Create(ChildKind.PYTORCHJOB, draft.children.workload(draft.run)))


def watch(draft: Draft) -> Draft:
    """Starting and Running."""
    if draft.current.stopping:
        return draining.begin(draft, _asked(draft, Cause.STOPPED, "a request said Stop"))
    if draft.spec.suspend:
        return draining.begin(draft, _asked(draft, Cause.SUSPENDED, "spec.suspend is true"))
    taken = next((item for item in draft.seen.workloads if _is_taken(draft, item.attempt, item.owned)), None)
    if taken is not None:
        return draft.stuck("NameTaken", f"PyTorchJob {taken.name} belongs to something else: delete it").look_again(30)
    if draft.workload is None and draft.current.workload_uid is None:
        return start(draft)
    scene = scene_of(draft.seen)
    verdict = classify(scene)
    if isinstance(verdict, Ended):
        return draining.begin(_remember(draft, scene), verdict.interruption)
    if isinstance(verdict, InDoubt):
        return _remember(draft, scene).move(doubt=verdict.doubt).look_again(verdict.look_again_seconds)
    draft = _remember(draft, scene).move(doubt=None)
    return _starting(draft, scene) if draft.current.state is State.STARTING else _running(draft)


def _is_taken(draft: Draft, attempt: int, owned: bool) -> bool:
    return attempt == draft.current.attempt and not owned


def _asked(draft: Draft, cause: Cause, evidence: str) -> Interruption:
    return Interruption(cause=cause, evidence=evidence, time=draft.now)


def _remember(draft: Draft, scene: Scene) -> Draft:
    """What must outlive the objects: UIDs, good ends, the first sign of a disruption."""
    current = draft.current
    uids = list(dict.fromkeys([*current.pod_uids, *(pod.uid for pod in scene.pods)]))[:MAX_POD_UIDS]
    ended = [pod.uid for pod in scene.pods if scene.ended_well(pod)]
    ended = list(dict.fromkeys([*current.ended_pod_uids, *ended]))[:MAX_POD_UIDS]
    workload = scene.workload
    return draft.move(
        pod_uids=uids,
        ended_pod_uids=ended,
        workload_uid=current.workload_uid or (workload.uid if workload is not None else None),
        seen_time=current.seen_time or (draft.now if workload is not None else None),
        disruption=_sign(scene, current.disruption),
    )


def _sign(scene: Scene, known: Interruption | None) -> Interruption | None:
    """Kubernetes takes the condition back where the deletion did not follow."""
    struck = next(iter(scene.struck), None)
    if struck is None:
        gone = known is not None and all(pod.name != known.pod for pod in scene.pods)
        return known if gone else None
    same = known is not None and known.pod == struck.name
    return known if same else disruption_of(scene, struck)


def _starting(draft: Draft, scene: Scene) -> Draft:
    workload = scene.workload
    assert workload is not None, "a workload that is gone has ended the attempt"
    if workload.suspended:
        return refusals.forget(draft).move(admitted_time=None)
    if draft.current.admitted_time is None:
        draft = draft.move(admitted_time=_admitted(draft))
    began = draft.current.admitted_time
    assert began is not None
    ran = [pod for pod in scene.pods if pod.phase is PodPhase.RUNNING or scene.ended_well(pod)]
    if len(ran) >= scene.expected:
        return _ran(draft, began)
    left = (began + timedelta(seconds=draft.spec.limits.start_timeout_seconds) - draft.now).total_seconds()
    if left <= 0:
        return draining.begin(draft, _never_started(draft, scene, len(ran)))
    return _missing(draft, scene, began).look_again(left)


def _missing(draft: Draft, scene: Scene, began: datetime) -> Draft:
    """A pod that cannot be made is shown before the time to start is over."""
    if draft.seen.refusal is not None:
        return refusals.show(draft, draft.seen.refusal)
    if len(scene.pods) >= scene.expected:
        return refusals.forget(draft)
    waited = draft.seconds_since(began)
    return draft if waited >= refusals.ASK_SECONDS else draft.look_again(refusals.ASK_SECONDS - waited)


def _admitted(draft: Draft) -> datetime:
    """The first sight, unless the workload was seen queued after it."""
    queued = draft.status.condition(ConditionType.SUSPENDED)
    if queued is not None and queued.reason == "Queued":
        return draft.now
    return draft.current.seen_time or draft.now


def _ran(draft: Draft, began: datetime) -> Draft:
    seen = draft.current.seen_time or began
    draft = draft.enter(State.RUNNING, running_time=draft.now).unstuck()
    draft = history.with_seconds(draft, queue=(began - seen).total_seconds(), start=(draft.now - began).total_seconds())
    count = sum(draft.current.replicas.values())
    return draft.tell("Running", f"all {count} pods of attempt {draft.current.attempt} run")


def _never_started(draft: Draft, scene: Scene, running: int) -> Interruption:
    why = refusals.in_words(draft.seen.refusal) if draft.seen.refusal is not None else None
    for pod in scene.pods:
        why = why or _waiting(pod.unschedulable, pod.name)
    for pod in scene.pods:
        for container in pod.containers:
            if why is None and container.waiting_reason is not None:
                why = f"container {container.name} of {pod.name} waits: {container.waiting_reason}"
    limit = draft.spec.limits.start_timeout_seconds
    evidence = f"{running} of {scene.expected} pods ran within {limit} s" + (f"; {why}" if why else "")
    node = _where_they_wait(scene)
    return Interruption(cause=Cause.NEVER_STARTED, evidence=evidence[:1024], node=node, time=draft.now)


def _where_they_wait(scene: Scene) -> str | None:
    """The node, where all pods that do not run are bound to one; a pod without a node waits for the scheduler."""
    waiting = [pod for pod in scene.pods if pod.phase is PodPhase.PENDING]
    nodes = {pod.node for pod in waiting}
    return nodes.pop() if len(nodes) == 1 else None


def _waiting(unschedulable: str | None, name: str) -> str | None:
    return f"{name} is not scheduled: {unschedulable}" if unschedulable is not None else None


def _running(draft: Draft) -> Draft:
    limit, began = draft.spec.limits.active_deadline_seconds, draft.current.running_time
    if limit is None or began is None:
        return draft
    left = limit - draft.status.running_seconds - draft.seconds_since(began)
    if left > 0:
        return draft.look_again(left)
    return draining.begin(draft, _asked(draft, Cause.DEADLINE, f"limits.activeDeadlineSeconds ({limit}) is used up"))
