"""A run that is being deleted: nothing is made or ended by us any more, and every child follows its owner."""

from __future__ import annotations

import pytest

from support.manifests import make_init
from support.observations import make_report, make_resume
from support.simulated_world import World
from sweeprun_operator.api.status import State
from sweeprun_operator.core.observation import Role
from sweeprun_protocol.reasons import Outcome

STATES = {
    State.PREPARING: lambda: World().settle(),
    State.INITIALIZING: lambda: World(init=make_init()).settle().answer(make_report(0, Outcome.INIT_REQUIRED)),
    State.STARTING: lambda: World().settle().later(1).answer(make_report(0, Outcome.FRESH)),
    State.RUNNING: lambda: World().begin(),
    State.DRAINING: lambda: World().begin().evict(),
    State.BACKOFF: lambda: World().begin().break_down().answer(make_report(1, Outcome.RESTART)),
    State.HELD: lambda: World().begin().edit(suspend=True).later(1).pods_go().later(6),
    State.FINISHED: lambda: World().begin().end_pods(0).pods_go().answer(make_report(1, Outcome.COMPLETED)),
}


@pytest.mark.parametrize("state", STATES, ids=str)
def test_a_run_that_is_being_deleted_is_left_to_the_garbage_collector(state):
    world = STATES[state]()
    assert world.current.state is state
    deleted = {"deletion_timestamp": world.now}
    world.run = world.run.model_copy(update={"metadata": world.run.metadata.model_copy(update=deleted)})
    before = (world.writes, list(world.created))
    world.later(3600)
    world.pods_go().later(3600)
    assert (world.writes, world.created) == before


def test_every_child_names_the_run_as_its_controller():
    world = World(init=make_init()).settle().answer(make_report(0, Outcome.INIT_REQUIRED))
    world.answer_unseen(make_report(0, Outcome.FRESH), role=Role.INIT)
    world.settle().later(2).start_pods().interrupt().go_on(make_resume(1, 500))
    assert [name.removeprefix("digits-lr-0-") for name in world.manifests] == ["p0", "i0", "a0", "s0", "p1", "a1"]
    for name, manifest in world.manifests.items():
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (world.run.metadata.uid, True), name
