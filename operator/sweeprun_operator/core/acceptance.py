"""Whether this generation of the spec may have children: our own rules first, then the API server's dry run."""

from __future__ import annotations

from sweeprun_operator.api.acceptance import Problem, problems, warnings
from sweeprun_operator.api.entrypoint import weaker
from sweeprun_operator.api.status import ConditionStatus, ConditionType, State

from .draft import Draft
from .observation import Acceptance

RETRY_SECONDS = 60.0
TRANSIENT_RETRY_SECONDS = 10.0


def judge(draft: Draft) -> Draft:
    """Settles Accepted once for each generation; what is finished is never judged again."""
    finished = draft.status.current is not None and draft.current.state is State.FINISHED
    draft = draft.update(observed_generation=draft.seen.run.metadata.generation)
    answer = draft.seen.acceptance
    if draft.accepted or finished or answer is None:
        return draft
    found = problems(draft.spec, answer.claim)
    if found:
        return _refuse(draft, str(found[0].reason), _sentence(found), transient=found[0].transient)
    if answer.problem is not None and answer.transient:
        return _undecided(draft, answer.problem)
    if answer.problem is not None:
        message = f"the API server refuses the workload (dry run): {answer.problem}; change spec.template"
        return _refuse(draft, "TemplateRefused", message, transient=False)
    return _accept(draft, answer)


def _accept(draft: Draft, answer: Acceptance) -> Draft:
    less = weaker(draft.spec)
    text = "the spec is valid and the dry run passed" + (f". {less}" if less is not None else "")
    draft = draft.condition(ConditionType.ACCEPTED, ConditionStatus.TRUE, "Accepted", text)
    for warning in warnings(draft.spec, answer.claim):
        draft = draft.warn(str(warning.reason), warning.message)
    return draft


def _refuse(draft: Draft, reason: str, message: str, *, transient: bool) -> Draft:
    before = draft.status.condition(ConditionType.ACCEPTED)
    draft = draft.condition(ConditionType.ACCEPTED, ConditionStatus.FALSE, reason, message)
    after = draft.status.condition(ConditionType.ACCEPTED)
    assert after is not None
    if before is None or (before.status, before.message) != (after.status, after.message):
        draft = draft.warn("NotAccepted", message)
    return draft.look_again(TRANSIENT_RETRY_SECONDS if transient else RETRY_SECONDS)


def _undecided(draft: Draft, problem: str) -> Draft:
    draft = draft.condition(
        ConditionType.ACCEPTED, ConditionStatus.UNKNOWN, "DryRunUnavailable", f"no dry run could be made: {problem}"
    )
    return draft.look_again(TRANSIENT_RETRY_SECONDS)


def _sentence(found: list[Problem]) -> str:
    return "; ".join(problem.message for problem in found)
