"""Edits of the spec: each generation is judged before it may have children, and what runs is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.manifests import make_template
from support.observations import make_acceptance, make_report, make_resume
from support.simulated_world import World
from sweeprun_operator.api.status import ConditionStatus, ConditionType, State
from sweeprun_operator.core.acceptance import RETRY_SECONDS, TRANSIENT_RETRY_SECONDS
from sweeprun_operator.core.observation import Claim
from sweeprun_protocol.reasons import Outcome

NOTHING = {"spec": {"pytorchReplicaSpecs": {"Master": {"replicas": "many", "template": {}}}}}


def test_a_spec_that_is_refused_has_no_children_and_is_looked_at_again():
    world = World(template=NOTHING).settle()
    assert world.created == []
    assert world.condition(ConditionType.ACCEPTED).status is ConditionStatus.FALSE
    assert world.status.phase == "NotAccepted"
    assert world.wants_again == RETRY_SECONDS
    assert world.reasons() == ["NotAccepted"]
    world.later(3600)
    assert world.reasons() == ["NotAccepted"], "told once"


def test_the_servers_word_on_the_template_is_shown():
    world = World()
    world.acceptance = make_acceptance(problem='unknown field "spec.containers[0].imagge"')
    world.settle()
    assert world.condition(ConditionType.ACCEPTED).reason == "TemplateRefused"
    assert "imagge" in world.condition(ConditionType.ACCEPTED).message


def test_a_server_that_cannot_be_asked_refuses_nothing():
    world = World()
    world.acceptance = make_acceptance(problem="webhook is away", transient=True)
    world.settle()
    assert world.condition(ConditionType.ACCEPTED).status is ConditionStatus.UNKNOWN
    assert world.created == []
    assert world.wants_again == TRANSIENT_RETRY_SECONDS
    world.acceptance = make_acceptance()
    world.when_wanted()
    assert world.created == ["digits-lr-0-p0"]


def test_a_claim_that_is_missing_is_waited_for():
    world = World()
    world.acceptance = make_acceptance(claim=Claim(found=False))
    world.settle()
    assert world.condition(ConditionType.ACCEPTED).reason == "ClaimMissing"
    assert world.wants_again == TRANSIENT_RETRY_SECONDS


def test_an_edit_that_is_refused_leaves_the_running_attempt_alone():
    world = World().begin().edit(template=NOTHING)
    assert world.current.state is State.RUNNING
    assert not world.status.is_true(ConditionType.ACCEPTED)


STAGES = {
    "while the attempt runs": lambda world: world,
    "while it drains": lambda world: world.evict(),
    "while prepare looks": lambda world: world.interrupt(),
    "while the next prepare waits": lambda world: world.interrupt().fail_job(),
}


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES.keys())
def test_a_template_that_is_refused_stops_the_run_until_it_is_mended(stage):
    world = stage(World().begin())
    good = world.run.spec.template.to_wire()
    world.edit(template=NOTHING)
    for _ in range(3):
        if world.workloads and world.current.state is State.RUNNING:
            world.evict()
        world.pods_go().later(700)
        for job in list(world.jobs.values()):
            if job.report is None and job.problem is None:
                world.answer(make_resume(job.number, 500))
    assert "digits-lr-0-a1" not in world.created
    world.edit(template=good)
    number = world.current.prepare
    if world.jobs[f"digits-lr-0-p{number}"].report is None:
        world.answer(make_resume(number, 500))
    assert "digits-lr-0-a1" in world.created
    assert world.status.counts.attempts == 2


def test_another_number_of_workers_takes_effect_with_the_next_attempt():
    world = World().begin().edit(template=make_template(workers=3))
    assert world.current.state is State.RUNNING
    world.interrupt()
    assert world.request_of(1).slots == ("master-0", "worker-0", "worker-1", "worker-2")
    world.answer(make_resume(1, 500))
    assert world.manifests["digits-lr-0-a1"]["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 3


def test_another_number_of_workers_while_prepare_looks_asks_prepare_again():
    world = World().begin().interrupt().edit(template=make_template(workers=3))
    assert world.request_of(1).slots == ("master-0", "worker-0")
    world.answer(make_resume(1, 500))
    assert "digits-lr-0-a1" not in world.created
    assert len(world.request_of(2).slots) == 4
    world.answer(make_resume(2, 500, epoch=3))
    assert "digits-lr-0-a1" in world.created
    assert world.status.counts.attempts == 2


def test_another_number_of_workers_while_the_attempt_waits_asks_prepare_again():
    world = World().begin().break_down().answer(make_report(1, Outcome.RESTART))
    world.edit(template=make_template(workers=3)).when_wanted()
    assert "digits-lr-0-a1" not in world.created
    assert world.status.history[1].cause == "Retried"
    assert len(world.request_of(2).slots) == 4


def test_a_new_image_while_the_attempt_waits_is_in_its_history():
    world = World().begin().break_down().answer(make_report(1, Outcome.RESTART))
    before = world.status.history[1].template_hash
    template = world.run.spec.template.to_wire()
    template["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["image"] = "other:2"
    world.edit(template=template).later(10)
    assert world.status.history[1].template_hash != before
    annotations = world.manifests["digits-lr-0-a1"]["metadata"]["annotations"]
    assert world.status.history[1].template_hash in annotations.values()


def test_a_finished_run_is_not_judged_again():
    world = World().begin().end_pods(0).pods_go().answer(make_report(1, Outcome.COMPLETED))
    accepted = world.condition(ConditionType.ACCEPTED)
    world.acceptance = make_acceptance(problem="no")
    world.edit(template=NOTHING)
    assert world.condition(ConditionType.ACCEPTED) == accepted
    assert world.status.observed_generation == world.run.metadata.generation


def test_progress_of_an_attempt_before_is_not_the_next_ones():
    world = World().begin().later(30).progress(540)
    world.interrupt().go_on(make_resume(1, 500))
    assert world.status.history[0].to_step == 540
    world.interrupt().go_on(make_resume(2, 500))
    assert world.status.history[1].to_step == 500
    assert world.status.savings.steps_repeated == 40


def test_limits_take_effect_at_once():
    world = World().begin().later(100).edit(limits={"activeDeadlineSeconds": 50})
    assert world.status.history[0].cause == "DeadlineExceeded"


def test_conditions_move_their_time_with_their_status_only():
    world = World().begin()
    before = world.condition(ConditionType.ACCEPTED)
    world.later(100).edit(limits={"maxFailures": 7})
    after = world.condition(ConditionType.ACCEPTED)
    assert after == replace_generation(before, world.run.metadata.generation)


def replace_generation(condition, generation):
    return condition.model_copy(update={"observed_generation": generation})


def test_an_observation_without_an_answer_on_a_new_generation_makes_nothing():
    world = World()
    seen = replace(world.observe(), acceptance=None)
    assert world.decide(seen).actions == ()
