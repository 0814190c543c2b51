"""What the API server would not let be made, in words for people: which rule stands in the way and what to do.

Jobs and PyTorchJobs go on trying, and say nothing of it but Events: neither has a condition for a pod that cannot be
made. Nothing is counted here: a quota may have room the next minute.
"""

from __future__ import annotations

from .draft import Draft
from .observation import Refusal

ASK_SECONDS = 5.0
"""A pod that is not there by then is asked about with a dry run: controllers need a second or two."""
LOOK_SECONDS = 60.0

_CHANGE = "change {field}, or what the namespace asks for"
_RULES: tuple[tuple[str, str, str], ...] = (
    ("exceeded quota", "QuotaExceeded", "it goes on by itself once that ResourceQuota has room"),
    ("failed quota", "QuotaExceeded", "set the requests and limits that this ResourceQuota asks for in {field}"),
    ("violates PodSecurity", "PodSecurity", _CHANGE),
    ("usage per ", "LimitRange", f"{_CHANGE} in its LimitRange"),
    ("limit to request ratio per ", "LimitRange", f"{_CHANGE} in its LimitRange"),
)
"""Words of the API server's own admission plug-ins (ResourceQuota, PodSecurity, LimitRanger), reason, advice."""
_OTHER = ("ChildRefused", _CHANGE)
REASONS = tuple(dict.fromkeys([*(reason for _, reason, _ in _RULES), _OTHER[0]]))


def show(draft: Draft, refusal: Refusal) -> Draft:
    """As Stuck: somebody may have to do something, though it is tried again all the time."""
    reason, _ = _rule(refusal)
    return draft.stuck(reason, in_words(refusal)).look_again(LOOK_SECONDS)


def in_words(refusal: Refusal) -> str:
    _, advice = _rule(refusal)
    return f"{refusal.what} is refused: {refusal.message}; {advice.format(field=refusal.field)}"


def forget(draft: Draft) -> Draft:
    """What was refused is there, or is not wanted any more."""
    return draft.unstuck(*REASONS)


def _rule(refusal: Refusal) -> tuple[str, str]:
    return next(((reason, advice) for words, reason, advice in _RULES if words in refusal.message), _OTHER)
