"""A survivor's error may be all there is for 48 s after a node died: when it is believed, and what it turns into."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from support.observations import NOW, make_pod, make_scene, make_trainer, make_workload, seconds_ago
from sweeprun_operator.api.status import Cause
from sweeprun_operator.core.classify import DELETION_SECONDS, classify
from sweeprun_operator.core.failures import DOUBT_SECONDS, LOOK_SECONDS
from sweeprun_operator.core.observation import PodPhase, PodState
from sweeprun_operator.core.scene import Scene
from sweeprun_operator.core.verdicts import Ended, GoesOn, InDoubt

NODE = "node-of-worker-0"


def survivor(**fields: Any) -> PodState:
    """The master, whose collective broke."""
    failed = (make_trainer(1, finished=seconds_ago(1), message="Connection closed by peer"),)
    return make_pod("master-0", **{"phase": PodPhase.FAILED, "containers": failed, **fields})


def worker(**fields: Any) -> PodState:
    return make_pod("worker-0", **fields)


SIGNS: dict[str, dict[str, Any]] = {
    "is missing": {"pods": (survivor(),)},
    "seems well, though its node may have died a moment ago": {"pods": (survivor(), worker())},
    "is Terminating": {"pods": (survivor(), worker(deleting=True))},
    "is on a node that does not answer": {
        "pods": (survivor(), worker()),
        "unready_nodes": frozenset({NODE}),
    },
}


def later(scene: Scene, seconds: float, doubt: Any, **changes: Any) -> Scene:
    return replace(scene, now=scene.now + timedelta(seconds=seconds), doubt=doubt, **changes)


@pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS.keys())
def test_a_survivors_error_waits_while_another_pod(sign):
    scene = make_scene(**sign)
    first = classify(scene)
    assert isinstance(first, InDoubt)
    assert first.doubt.since == NOW
    assert isinstance(classify(later(scene, DOUBT_SECONDS - 1, first.doubt)), InDoubt)
    assert isinstance(classify(later(scene, DOUBT_SECONDS, first.doubt)), Ended)


@pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS.keys())
def test_nodes_are_looked_at_while_it_waits(sign):
    assert classify(make_scene(**sign)).look_again_seconds == LOOK_SECONDS
    last = classify(later(make_scene(**sign), DOUBT_SECONDS - 2, classify(make_scene(**sign)).doubt))
    assert last.look_again_seconds == 2


def test_a_survivors_error_is_believed_at_once_where_all_peers_have_ended():
    killed = worker(phase=PodPhase.FAILED, containers=(make_trainer(137, finished=seconds_ago(0)),))
    verdict = classify(make_scene(survivor(), killed))
    assert verdict.interruption.cause is Cause.APPLICATION
    assert "Connection closed by peer" in verdict.interruption.evidence


def test_peers_that_go_in_the_clean_up_leave_the_error_as_the_cause():
    scene = make_scene(survivor(), worker(deleting=True))
    doubt = classify(scene).doubt
    verdict = classify(later(scene, 20, doubt, pods=(survivor(),)))
    assert verdict.interruption.cause is Cause.APPLICATION
    assert verdict.interruption.pod == survivor().name


def test_peers_killed_in_the_clean_up_leave_the_error_as_the_cause():
    scene = make_scene(survivor(), worker(deleting=True))
    killed = worker(deleting=True, phase=PodPhase.FAILED, containers=(make_trainer(137, finished=seconds_ago(-10)),))
    verdict = classify(later(scene, 20, classify(scene).doubt, pods=(survivor(), killed)))
    assert verdict.interruption.cause is Cause.APPLICATION
    assert verdict.interruption.pod == survivor().name


def test_the_condition_that_comes_late_is_the_cause():
    scene = make_scene(survivor(), worker(deleting=True))
    struck = worker(deleting=True, disruption="DeletionByTaintManager")
    verdict = classify(later(scene, 48, classify(scene).doubt, pods=(survivor(), struck)))
    assert verdict.interruption.cause is Cause.TAINT


def test_a_node_that_stops_answering_meanwhile_is_the_cause_in_the_end():
    scene = make_scene(survivor(), worker(deleting=True))
    silent = classify(later(scene, 46, classify(scene).doubt, unready_nodes=frozenset({NODE})))
    assert isinstance(silent, InDoubt)
    verdict = classify(later(scene, 61, silent.doubt, unready_nodes=frozenset({NODE})))
    assert verdict.interruption.cause is Cause.POD_GC
    assert verdict.interruption.node == NODE
    assert "Connection closed by peer" in verdict.interruption.evidence


def test_a_node_that_answered_again_has_been_away_all_the_same():
    scene = make_scene(survivor(), worker(deleting=True))
    silent = classify(later(scene, 46, classify(scene).doubt, unready_nodes=frozenset({NODE})))
    verdict = classify(later(scene, 61, silent.doubt, pods=(survivor(),)))
    assert verdict.interruption.cause is Cause.POD_GC


def test_a_node_of_a_pod_that_has_ended_is_no_sign():
    done = worker(exit_code=0)
    verdict = classify(make_scene(survivor(), done, unready_nodes=frozenset({NODE})))
    assert verdict.interruption.cause is Cause.APPLICATION


def test_a_dead_node_is_found_out_though_its_pod_seemed_well_when_the_survivor_failed():
    """Powered off, seen on kind: the survivor's error comes within a second, everything else after 20 to 50 s."""
    scene = make_scene(survivor(), worker())
    first = classify(scene)
    stopped = worker(deleting=True)
    cleaned = classify(later(scene, 2, first.doubt, pods=(survivor(), stopped)))
    silent = classify(later(scene, 20, cleaned.doubt, pods=(survivor(), stopped), unready_nodes=frozenset({NODE})))
    assert isinstance(silent, InDoubt)
    struck = replace(stopped, disruption="DeletionByTaintManager")
    verdict = classify(later(scene, 21, silent.doubt, pods=(survivor(), struck), unready_nodes=frozenset({NODE})))
    assert verdict.interruption.cause is Cause.TAINT


def test_the_own_node_of_the_survivor_is_no_sign():
    killed = worker(phase=PodPhase.FAILED, containers=(make_trainer(137, finished=seconds_ago(0)),))
    verdict = classify(make_scene(survivor(), killed, unready_nodes=frozenset({"node-of-master-0"})))
    assert verdict.interruption.cause is Cause.APPLICATION


@pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS.keys())
def test_what_is_certain_does_not_wait_while_another_pod(sign):
    killed = survivor(containers=(make_trainer(137, reason="OOMKilled", finished=seconds_ago(1)),))
    pods = (killed, *sign["pods"][1:])
    assert classify(make_scene(**{**sign, "pods": pods})).interruption.cause is Cause.OOM_KILLED


# -- a job that says it failed while no pod does -----------------------------------------------------------------------


def test_a_failed_job_waits_for_its_pods_to_say_why():
    scene = make_scene(workload=make_workload(failed=True, failure_message="it has failed"))
    doubt = classify(scene)
    assert isinstance(doubt, InDoubt)
    verdict = classify(later(scene, DOUBT_SECONDS, doubt.doubt))
    assert verdict.interruption.cause is Cause.APPLICATION
    assert "it has failed" in verdict.interruption.evidence


def test_a_failed_job_whose_pod_is_gone_was_disrupted():
    scene = make_scene(make_pod("master-0"), workload=make_workload(failed=True))
    verdict = classify(later(scene, DELETION_SECONDS, classify(scene).doubt))
    assert verdict.interruption.cause is Cause.POD_LOST


# -- pods that are gone without a word ---------------------------------------------------------------------------------


def test_a_pod_that_vanished_waits_a_moment_for_what_a_watch_may_tell():
    scene = make_scene(make_pod("master-0"))
    first = classify(scene)
    assert isinstance(first, InDoubt)
    assert first.look_again_seconds == DELETION_SECONDS
    told = worker(deleting=True, disruption="DeletionByPodGC")
    assert classify(later(scene, 0.5, first.doubt, departed=(told,))).interruption.cause is Cause.POD_GC
    alone = classify(later(scene, DELETION_SECONDS, first.doubt))
    assert alone.interruption.cause is Cause.POD_LOST


def test_an_error_that_follows_the_loss_of_a_peer_is_not_the_cause():
    first = classify(make_scene(make_pod("master-0")))
    after = make_scene(survivor())
    assert classify(later(after, DELETION_SECONDS, first.doubt)).interruption.cause is Cause.POD_LOST


def test_a_pod_that_vanished_while_its_deletion_was_in_doubt_is_lost_at_once():
    deleted = classify(make_scene(make_pod("master-0"), worker(deleting=True)))
    verdict = classify(later(make_scene(make_pod("master-0")), 1, deleted.doubt))
    assert verdict.interruption.cause is Cause.POD_LOST


# -- deletions without a reason ----------------------------------------------------------------------------------------


def test_a_deletion_without_the_condition_waits_a_moment_for_a_queues_word():
    scene = make_scene(make_pod("master-0"), worker(deleting=True))
    first = classify(scene)
    assert isinstance(first, InDoubt)
    assert first.look_again_seconds == DELETION_SECONDS
    queued = classify(later(scene, 1, first.doubt, workload=make_workload(suspended=True)))
    assert queued.interruption.cause is Cause.QUEUE_SUSPENDED
    alone = classify(later(scene, DELETION_SECONDS, first.doubt))
    assert alone.interruption.cause is Cause.POD_LOST
    assert "deleted, without the condition" in alone.interruption.evidence


def test_a_pod_that_ended_well_may_be_deleted():
    scene = make_scene(make_pod("master-0"), worker(exit_code=0, deleting=True))
    assert isinstance(classify(scene), GoesOn)
