"""Raw Job, Pod, PyTorchJob -> what decisions know of them. Pure; every text from a tenant's pod is cut and checked."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from sweeprun_operator.api.entrypoint import CHECK
from sweeprun_operator.core.observation import (
    ContainerState,
    HelperJob,
    JobPhase,
    PodPhase,
    PodState,
    Role,
    Workload,
)
from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.keys import NUMBER_LABEL, ROLE_ATTEMPT, ROLE_LABEL
from sweeprun_protocol.names import is_slot, slot
from sweeprun_protocol.prepare import REPORT_BYTES, PrepareReport

from .fields import (
    MESSAGE_CHARACTERS,
    condition,
    controlled_by,
    deleting,
    digits,
    end_of_text,
    items,
    labels_of,
    moment,
    name_of,
    number,
    sub,
    text,
    true_condition,
    uid_of,
    word,
)
from .gateway import Raw

REPLICA_TYPE_LABEL = "training.kubeflow.org/replica-type"
REPLICA_INDEX_LABEL = "training.kubeflow.org/replica-index"
UNKNOWN_SLOT = "unknown-0"
"""Slot of a pod of ours that lost its replica labels: it must stay visible, or a drain would end too early."""

_NOTHING_STARTED = datetime(1970, 1, 2, tzinfo=UTC)
"""The kubelet writes 1970 as the start of a container that it could not start."""
_WAITING_NORMALLY = frozenset({"PodInitializing", "ContainerCreating"})


def helper_jobs(jobs: Iterable[Raw], pods: Iterable[Raw], *, owner_uid: str) -> tuple[HelperJob, ...]:
    """The prepare, init and survey Jobs among `jobs`; `pods` are all pods of the run."""
    by_job: dict[str, list[Raw]] = {}
    for pod in pods:
        for reference in items(sub(pod, "metadata"), "ownerReferences"):
            if reference.get("controller") is True and isinstance(reference.get("uid"), str):
                by_job.setdefault(reference["uid"], []).append(pod)
    found = (_helper_job(job, by_job.get(uid_of(job), []), owner_uid) for job in jobs)
    return tuple(job for job in found if job is not None)


def _helper_job(raw: Raw, pods: list[Raw], owner_uid: str) -> HelperJob | None:
    labels = labels_of(raw)
    count = digits(labels, NUMBER_LABEL)
    try:
        role = Role(str(labels.get(ROLE_LABEL)))
    except ValueError:
        return None
    if count is None:
        return None
    status = sub(raw, "status")
    failed, complete = true_condition(status, "Failed"), true_condition(status, "Complete")
    report, problem, answered = _answer(pods, count) if role is not Role.SURVEY else (None, None, None)
    phase = JobPhase.ACTIVE
    if complete is not None or report is not None:
        # The answer is final as soon as it can be read; the Job's own condition follows a second or two later.
        phase = JobPhase.SUCCEEDED
    elif failed is not None:
        phase = JobPhase.FAILED
        said = f"{word(failed, 'reason') or 'Failed'}: {text(failed, 'message') or 'the Job failed'}"
        problem = f"{problem}; {said}"[:MESSAGE_CHARACTERS] if problem else said[:MESSAGE_CHARACTERS]
    if phase is JobPhase.SUCCEEDED and report is None and problem is None:
        problem = "the Job is complete, but its pod and answer are gone"
    return HelperJob(
        name=name_of(raw),
        uid=uid_of(raw),
        role=role,
        number=count,
        owned=controlled_by(raw, owner_uid),
        phase=phase,
        deleting=deleting(raw),
        suspended=sub(raw, "spec").get("suspend") is True,
        podless=not pods,
        report=report,
        problem=problem,
        created=moment(sub(raw, "metadata"), "creationTimestamp"),
        finished=answered
        or moment(status, "completionTime")
        or (moment(failed, "lastTransitionTime") if failed else None),
    )


def _answer(pods: list[Raw], count: int) -> tuple[PrepareReport | None, str | None, datetime | None]:
    """Report, or why there is none, and when it was given. The newest pod that ended well speaks; else the newest."""
    newest_first = sorted(pods, key=lambda pod: str(sub(pod, "metadata").get("creationTimestamp")), reverse=True)
    for pod in newest_first:
        ended = next((sub(item, "state", "terminated") for item in items(sub(pod, "status"), "containerStatuses")), {})
        if ended and number(ended, "exitCode") == 0:
            report, problem = _report(ended, count)
            return report, problem, moment(ended, "finishedAt") if report else None
    return None, _pod_problem(newest_first[0]) if newest_first else None, None


def _report(ended: Raw, count: int) -> tuple[PrepareReport | None, str | None]:
    message = ended.get("message")
    if not isinstance(message, str) or not message:
        return None, "the pod ended with 0, but gave no answer"
    try:
        report = PrepareReport.decode(message[: REPORT_BYTES + 1024].encode())
    except (RecordError, UnicodeEncodeError) as error:
        return None, f"the answer cannot be read: {error}"[:MESSAGE_CHARACTERS]
    if report.prepare != count:
        return None, f"the answer is of prepare {report.prepare}, not of prepare {count}"
    return report, None


def _pod_problem(pod: Raw) -> str | None:
    status = sub(pod, "status")
    disruption = true_condition(status, "DisruptionTarget")
    if disruption is not None:
        return f"its pod was disrupted: {word(disruption, 'reason')}"
    for item in [*items(status, "initContainerStatuses"), *items(status, "containerStatuses")]:
        said = _container_problem(item)
        if said is not None:
            return said
    if status.get("phase") == "Failed":
        said = f"its pod failed: {word(status, 'reason') or 'no reason given'}: {text(status, 'message') or ''}"
        return said.rstrip(": ")[:MESSAGE_CHARACTERS]
    scheduled = condition(status, "PodScheduled")
    if scheduled is not None and scheduled.get("status") == "False":
        return f"its pod is not scheduled: {text(scheduled, 'message') or word(scheduled, 'reason')}"[
            :MESSAGE_CHARACTERS
        ]
    return None


def _container_problem(raw: Raw) -> str | None:
    ended, waiting = sub(raw, "state", "terminated"), sub(raw, "state", "waiting")
    name = word(raw, "name")
    if ended and number(ended, "exitCode") != 0:
        said = f"container {name} ended with {number(ended, 'exitCode')} ({word(ended, 'reason') or 'no reason given'})"
        message = end_of_text(ended, "message", most=MESSAGE_CHARACTERS - len(said) - 2)
        return f"{said}: {message}" if message else said
    reason = word(waiting, "reason")
    if reason is not None and reason not in _WAITING_NORMALLY:
        return f"container {name} is waiting: {reason}: {text(waiting, 'message') or ''}".rstrip(": ")[
            :MESSAGE_CHARACTERS
        ]
    return None


def workloads(raws: Iterable[Raw], *, owner_uid: str) -> tuple[Workload, ...]:
    found = (_workload(raw, owner_uid) for raw in raws)
    return tuple(item for item in found if item is not None)


def _workload(raw: Raw, owner_uid: str) -> Workload | None:
    attempt = digits(labels_of(raw), NUMBER_LABEL)
    if attempt is None:
        return None
    status = sub(raw, "status")
    failed = true_condition(status, "Failed")
    succeeded = true_condition(status, "Succeeded")
    ended = failed or succeeded
    return Workload(
        name=name_of(raw),
        uid=uid_of(raw),
        attempt=attempt,
        owned=controlled_by(raw, owner_uid),
        deleting=deleting(raw),
        succeeded=succeeded is not None,
        failed=failed is not None,
        failure_message=text(failed, "message") if failed else None,
        suspended=sub(raw, "spec", "runPolicy").get("suspend") is True,
        created=moment(sub(raw, "metadata"), "creationTimestamp"),
        finished=moment(status, "completionTime") or (moment(ended, "lastTransitionTime") if ended else None),
    )


def attempt_pods(raws: Iterable[Raw]) -> tuple[PodState, ...]:
    found = (_pod(raw) for raw in raws if labels_of(raw).get(ROLE_LABEL) == ROLE_ATTEMPT)
    return tuple(pod for pod in found if pod is not None)


def _pod(raw: Raw) -> PodState | None:
    attempt = digits(labels_of(raw), NUMBER_LABEL)
    if attempt is None:
        return None
    status = sub(raw, "status")
    disruption = true_condition(status, "DisruptionTarget")
    scheduled = condition(status, "PodScheduled")
    refused = scheduled is not None and scheduled.get("status") == "False"
    return PodState(
        name=name_of(raw),
        uid=uid_of(raw),
        attempt=attempt,
        slot=_slot(raw),
        phase=_phase(status),
        deleting=deleting(raw),
        reason=word(status, "reason"),
        message=text(status, "message"),
        disruption=(word(disruption, "reason") or "Unknown") if disruption is not None else None,
        disruption_message=text(disruption, "message") if disruption is not None else None,
        disruption_time=moment(disruption, "lastTransitionTime") if disruption is not None else None,
        scheduled=scheduled is not None and scheduled.get("status") == "True",
        unschedulable=(text(scheduled, "message") or "no message") if scheduled is not None and refused else None,
        node=text(sub(raw, "spec"), "nodeName", most=253),
        containers=(
            *(_container(item, init=True) for item in items(status, "initContainerStatuses")),
            *(_container(item, init=False) for item in items(status, "containerStatuses")),
        ),
        created=moment(sub(raw, "metadata"), "creationTimestamp"),
        unwrapped=any(item.get("name") == CHECK for item in items(sub(raw, "spec"), "initContainers")),
        grace_seconds=number(sub(raw, "metadata"), "deletionGracePeriodSeconds"),
    )


def _slot(raw: Raw) -> str:
    labels = labels_of(raw)
    index = digits(labels, REPLICA_INDEX_LABEL)
    name = slot(str(labels.get(REPLICA_TYPE_LABEL)), index) if index is not None else ""
    return name if is_slot(name) else UNKNOWN_SLOT


def _phase(status: Raw) -> PodPhase:
    try:
        return PodPhase(str(status.get("phase", "Pending")))
    except ValueError:
        return PodPhase.UNKNOWN


def _container(raw: Raw, *, init: bool) -> ContainerState:
    state = sub(raw, "state")
    ended = sub(state, "terminated")
    return ContainerState(
        name=word(raw, "name") or "",
        init=init,
        started=bool(sub(state, "running"))
        or "running" in state
        or _ran(ended)
        or bool(sub(raw, "lastState", "terminated")),
        waiting_reason=word(sub(state, "waiting"), "reason"),
        exit_code=number(ended, "exitCode"),
        reason=word(ended, "reason"),
        message=end_of_text(ended, "message"),
        finished=moment(ended, "finishedAt"),
    )


def _ran(ended: Raw) -> bool:
    if not ended:
        return False
    began = moment(ended, "startedAt")
    # The kubelet says ContainerStatusUnknown only of containers that it had seen running, and then knows no start.
    return ended.get("reason") == "ContainerStatusUnknown" or (began is not None and began > _NOTHING_STARTED)
