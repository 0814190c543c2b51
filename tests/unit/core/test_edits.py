"""Whatever was edited meanwhile, and back: the run ends up where one of the same final spec would, and what runs is
left alone until something says that it is to end now."""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from support.manifests import make_template
from support.observations import make_resume
from support.simulated_world import World
from sweeprun_operator.api.status import ConditionType, State

REFUSED = {"spec": {"pytorchReplicaSpecs": {"Master": {"replicas": "many", "template": {}}}}}
ATTEMPT, FIRST = "digits-lr-0-a1", "digits-lr-0-a0"


def template(image, workers=1):
    made = make_template(workers=workers)
    for replica in made["spec"]["pytorchReplicaSpecs"].values():
        replica["template"]["spec"]["containers"][0]["image"] = image
    return made


EDITS = st.one_of(
    st.fixed_dictionaries({"template": st.sampled_from([template("i:1"), template("i:2", 3), REFUSED])}),
    st.fixed_dictionaries({"resume": st.sampled_from([{"args": ["--resume"]}, {"args": []}, {"policy": "Never"}])}),
    st.fixed_dictionaries({"limits": st.sampled_from([{"maxFailures": 1}, {"maxFailures": 9}])}),
    st.fixed_dictionaries({"checkpoint": st.sampled_from([{"retention": {"keepLast": 2}}, {"format": "Torch"}])}),
    st.fixed_dictionaries({"unreachable": st.just({"tolerationSeconds": 5})}),
)
"""All that does not end what runs: [A], and those of [L] that say nothing to a run like this."""


def next_attempt(world: World) -> World:
    """Disrupted, judged, and made again if its spec is accepted."""
    world.interrupt().later(6)
    for _ in range(3):
        job = world.jobs.get(f"digits-lr-0-p{world.current.prepare}")
        if job is None or job.report is not None:
            break
        world.answer(make_resume(job.number, 500, epoch=job.number + 1))
    return world


def what_it_is(world: World) -> dict:
    accepted = world.condition(ConditionType.ACCEPTED)
    newest = f"digits-lr-0-p{world.current.prepare}"
    request = world.request_of(world.current.prepare) if newest in world.manifests else None
    return {
        "accepted": (accepted.status, accepted.reason, accepted.message),
        "state": world.current.state,
        "attempt": world.manifests.get(ATTEMPT),
        "prepare": newest,
        "request": request,
        "counts": world.status.counts,
        "phase": world.status.phase,
    }


@given(st.lists(EDITS, max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_a_sequence_of_edits_ends_as_the_final_spec_alone(edits):
    edited, final = World().begin(), {}
    running = edited.manifests[FIRST]
    for edit in edits:
        edited.edit(**edit)
        final |= edit
        assert edited.current.state is State.RUNNING
        assert edited.created[-1] == FIRST, "an edit makes nothing"
        assert edited.manifests[FIRST] is running
    fresh = World().begin().edit(**final)
    assert what_it_is(next_attempt(edited)) == what_it_is(next_attempt(fresh))


@given(st.lists(EDITS, max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_a_sequence_of_edits_ends_as_an_object_that_never_was_another(edits):
    """Made with the final spec at once, begun and disrupted as the edited one was."""
    final = {}
    for edit in edits:
        final |= edit
    assume(final.get("template") != REFUSED)
    edited = World().begin()
    for edit in edits:
        edited.edit(**edit)
    found, wanted = what_it_is(next_attempt(edited)), what_it_is(next_attempt(World(**final).begin()))
    assert found == wanted
    assert found["attempt"] is not None, "a test of nothing"


@given(st.lists(st.sampled_from([True, False]), max_size=5))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_suspending_takes_effect_now_and_the_last_word_counts(words):
    world = World().begin()
    for word in words:
        world.edit(suspend=word)
    if True not in words:
        assert world.current.state is State.RUNNING
        return
    assert world.workloads == {}, "whoever says so once has ended the attempt"
    world.pods_go().later(6)
    held = words[-1]
    assert (world.current.state is State.HELD) == held
    assert world.created[-1] == (FIRST if held else "digits-lr-0-p1")


def test_what_was_refused_and_mended_leaves_no_trace():
    world = World().begin()
    good = world.run.spec.template.to_wire()
    before = what_it_is(world)
    world.edit(template=REFUSED)
    assert world.status.observed_generation == world.run.metadata.generation
    world.edit(template=good)
    assert what_it_is(world) == before
