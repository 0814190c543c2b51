"""Reading ahead: while the pods of an ended attempt use their grace, a Job looks at the checkpoints that are there.

Nothing waits for it, and no decision reads it. One at most for each drain, made with its first pass; it goes with the
drain, as a leftover. It costs the start of a pod, and is worth it where a drain takes seconds and prepare reads a lot.
"""

from __future__ import annotations

from sweeprun_operator.api.status import Cause, Interruption, Kind
from sweeprun_protocol.reasons import Level, ResumePolicy

from .classify import KINDS
from .draft import Draft
from .observation import PodPhase
from .plan import ChildKind, Create

SHARED = "ReadWriteMany"
_NO_RESUME = frozenset({Cause.COMPLETED, Cause.SUSPENDED, Cause.STOPPED, Cause.DEADLINE})
"""After these no attempt follows, or not now."""


def begin(draft: Draft) -> Draft:
    if not (_has_to_read(draft) and _takes_a_while(draft) and draft.accepted):
        return draft
    manifest = draft.children.survey_job(draft.run, cluster_id=draft.seen.cluster_id)
    return draft.act(Create(ChildKind.JOB, manifest, optional=True))


def _has_to_read(draft: Draft) -> bool:
    """An attempt that ran, and a prepare that will look at every byte of what it left."""
    ended = draft.current.interruption
    assert ended is not None, "a drain begins with its cause"
    ran = draft.current.running_time is not None and draft.status.run_id is not None
    full = draft.spec.checkpoint.validation.level is Level.FULL
    return ran and full and ended.cause not in _NO_RESUME and _may_resume(draft, ended)


def _may_resume(draft: Draft, ended: Interruption) -> bool:
    policy = draft.spec.resume.policy
    if policy is ResumePolicy.ON_DISRUPTION:
        return KINDS[ended.cause] is not Kind.FAILURE
    return policy is ResumePolicy.ALWAYS


def _takes_a_while(draft: Draft) -> bool:
    """A pod still has its grace; and the volume can be on another node at the same time, or else whoever has it mounted
    last holds up the prepare."""
    claim, attempt = draft.seen.claim, draft.current.attempt
    ends = (PodPhase.SUCCEEDED, PodPhase.FAILED)
    going = [pod for pod in draft.seen.pods if pod.attempt == attempt and pod.phase not in ends]
    return bool(going) and claim is not None and SHARED in claim.access_modes
