"""What the API server refuses is shown as that, at once, and nothing is counted for it."""

from __future__ import annotations

import pytest

from support.observations import make_report
from support.simulated_states import starting
from support.simulated_world import World
from sweeprun_operator.api.status import ConditionType
from sweeprun_operator.core.observation import PodPhase
from sweeprun_operator.core.refusals import ASK_SECONDS
from sweeprun_protocol.reasons import Outcome

QUOTA = 'pods "x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=4, limited: pods=4'
WORDS = {
    QUOTA: ("QuotaExceeded", "it goes on by itself"),
    'pods "x" is forbidden: failed quota: team: must specify limits.memory for: pytorch': ("QuotaExceeded", "set the"),
    'pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false': (
        "PodSecurity",
        "change spec.helperPods",
    ),
    'pods "x" is forbidden: minimum cpu usage per Container is 1, but request is 50m': ("LimitRange", "LimitRange"),
    'pods "x" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio is 40.000000': (
        "LimitRange",
        "LimitRange",
    ),
    'admission webhook "policy.test" denied the request: no': ("ChildRefused", "change spec.helperPods"),
}


@pytest.mark.parametrize("message", WORDS)
def test_the_condition_names_the_rule_and_says_what_to_do(message: str):
    reason, advice = WORDS[message]
    world = World().settle().change_job(podless=True).later(ASK_SECONDS).refuse(message, what="the pod of Job p0")
    assert world.is_stuck() == reason
    said = world.condition(ConditionType.STUCK).message
    assert said.startswith(f"the pod of Job p0 is refused: {message}; ")
    assert advice in said
    assert world.reasons().count("Stuck") == 1


def test_a_prepare_without_a_pod_is_looked_at_again_soon():
    world = World().settle().change_job(podless=True)
    assert world.wants_again == ASK_SECONDS
    assert World().settle().change_job(podless=False).wants_again is None


def test_a_prepare_whose_pod_was_made_at_last_is_not_stuck_any_more():
    world = World().settle().change_job(podless=True).later(ASK_SECONDS).refuse(QUOTA)
    world.refuse(None)
    assert world.is_stuck() == "QuotaExceeded", "it has no pod yet"
    world.change_job(podless=False)
    assert world.is_stuck() is None


def test_an_attempt_that_lacks_a_pod_is_looked_at_again_soon():
    world = starting()
    assert world.wants_again == ASK_SECONDS
    assert world.start_pods(phase=PodPhase.PENDING).wants_again > ASK_SECONDS


def test_an_attempt_whose_pods_were_made_at_last_is_not_stuck_any_more():
    world = starting().later(ASK_SECONDS).refuse(QUOTA, field="spec.template")
    assert world.is_stuck() == "QuotaExceeded"
    assert world.status.phase == "Stuck"
    world.refuse(None).start_pods(phase=PodPhase.PENDING)
    assert world.is_stuck() is None
    assert world.status.counts.never_started == 0


def test_an_attempt_that_never_got_its_pods_says_why():
    world = starting().later(ASK_SECONDS).refuse(QUOTA, field="spec.template").later(1800)
    assert world.status.history[0].cause == "NeverStarted"
    assert "0 of 2 pods ran within 1800 s; the pod is refused" in world.status.history[0].evidence
    assert QUOTA in world.status.history[0].evidence


def test_a_child_that_is_refused_itself_is_shown_and_made_later():
    world = World()
    world.refuse('jobs.batch "p0" is forbidden: exceeded quota: team', what="Job p0")
    assert world.is_stuck() == "QuotaExceeded"
    world.refuse(None).answer(make_report(0, Outcome.FRESH))
    assert world.is_stuck() is None
    world.refuse('admission webhook "policy.test" denied the request: no', what="PyTorchJob a0", field="spec.template")
    assert world.is_stuck() == "ChildRefused"
