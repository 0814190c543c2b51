"""Reading ahead during a drain: one survey where it is worth it, and nothing ever waits for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.observations import make_report, make_resume
from support.simulated_world import World
from sweeprun_operator.api.status import State
from sweeprun_operator.core.observation import Claim, JobPhase, Role
from sweeprun_operator.core.plan import Create
from sweeprun_protocol.reasons import Outcome

SURVEY = "digits-lr-0-s0"
RWO = Claim(found=True, access_modes=("ReadWriteOnce",))


def world(**spec):
    return World(**spec).begin()


def evicted(**spec):
    return world(**spec).evict()


def test_a_drain_begins_with_a_survey_that_is_asked_what_the_ended_prepare_was():
    seen = evicted()
    assert seen.current.state is State.DRAINING
    assert seen.surveys == [SURVEY]
    request = seen.request_of(0, role=Role.SURVEY)
    assert (request.prepare, request.run_id, request.started) == (0, seen.status.run_id, True)
    assert request.known_epoch == seen.current.epoch


def test_a_survey_is_optional_and_comes_after_what_ends_the_attempt():
    seen = world()
    pod = seen.pod("worker-0")
    seen.pods[pod.name] = replace(pod, deleting=True, disruption="EvictionByEvictionAPI", disruption_time=seen.now)
    plan = seen.one_pass()
    *others, last = plan.actions
    assert isinstance(last, Create)
    assert last.optional
    assert others
    assert not any(isinstance(action, Create) for action in others)


@pytest.mark.parametrize("phase", list(JobPhase))
def test_the_prepare_is_made_whatever_became_of_the_survey_and_the_survey_goes(phase):
    seen = evicted()
    seen.jobs[SURVEY] = replace(seen.jobs[SURVEY], phase=phase, problem="it has one")
    seen.later(6).pods_go()
    assert seen.current.state is State.PREPARING
    assert "digits-lr-0-p1" in seen.jobs
    assert SURVEY not in seen.jobs
    seen.go_on(make_resume(1, 500))
    assert seen.created[-1] == "digits-lr-0-a1"


def test_a_survey_that_vanished_is_not_made_again():
    seen = evicted()
    del seen.jobs[SURVEY]
    seen.later(30)
    assert seen.surveys == [SURVEY]
    assert SURVEY not in seen.jobs


def test_a_survey_of_somebody_elses_name_is_left_alone():
    seen = evicted()
    seen.jobs[SURVEY] = replace(seen.jobs[SURVEY], owned=False)
    seen.later(6).pods_go()
    assert SURVEY in seen.jobs
    assert "digits-lr-0-p1" in seen.jobs
    assert seen.is_stuck() is None


def test_each_drain_has_its_own():
    seen = evicted().later(6).pods_go().go_on(make_resume(1, 500)).evict()
    assert seen.surveys == [SURVEY, "digits-lr-0-s1"]


def test_a_survey_goes_with_a_drain_that_no_prepare_follows():
    seen = evicted().edit(suspend=True).later(6).pods_go()
    assert seen.current.state is State.HELD
    assert SURVEY not in seen.jobs


@pytest.mark.parametrize(
    ("spec", "claim"),
    [
        ({"checkpoint": {"validation": {"level": "Fast"}}}, None),
        ({"resume": {"policy": "Never"}}, None),
        ({}, RWO),
        ({}, Claim(found=False)),
    ],
)
def test_no_survey_where_prepare_reads_little_or_the_volume_is_not_shared(spec, claim):
    seen = world(**spec)
    seen.claim = claim or seen.claim
    seen.evict()
    assert seen.current.state is State.DRAINING
    assert not seen.surveys


def test_no_survey_of_an_attempt_that_never_ran():
    seen = World().settle().later(1)
    seen.answer(make_report(0, Outcome.FRESH)).later(2)
    seen.start_pods_partly().evict("master-0")
    assert seen.current.state is State.DRAINING
    assert not seen.surveys


@pytest.mark.parametrize("exit_code", [0, 1])
def test_no_survey_where_no_pod_has_any_grace_left(exit_code):
    seen = world().end_pods(exit_code)
    assert seen.current.state is State.DRAINING
    assert not seen.surveys


def test_no_survey_for_a_run_that_is_suspended_or_stopped():
    for change in ({"suspend": True}, {"request": {"id": "1", "action": "Stop"}}):
        seen = world().edit(**change)
        assert seen.current.state is State.DRAINING
        assert not seen.surveys
