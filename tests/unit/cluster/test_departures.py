"""What watches told of disrupted pods: kept while it may be needed, and bounded."""

from __future__ import annotations

import pytest

from support.objects import UID, condition, trainer_pod, with_labels
from sweeprun_operator.api.status import MAX_POD_UIDS
from sweeprun_operator.cluster import departures as module
from sweeprun_operator.cluster.departures import Departures
from sweeprun_protocol.keys import ROLE_LABEL, UID_LABEL


def marked(attempt=0, index=0):
    status = {"phase": "Running", "conditions": [condition("DisruptionTarget", reason="EvictionByEvictionAPI")]}
    return trainer_pod(attempt, index=index, status=status)


def names(departures, uid=UID):
    return [pod.name for pod in departures.of(uid, ())]


@pytest.fixture
def departures():
    return Departures()


def test_a_marked_pod_is_remembered_for_its_run_alone(departures):
    departures.heard(marked())
    assert names(departures) == ["run-a0-worker-0"]
    assert names(departures, "another") == []


def test_a_pod_without_the_mark_is_not(departures):
    departures.heard(trainer_pod(0))
    assert names(departures) == []


def test_a_mark_that_is_taken_back_is_forgotten(departures):
    departures.heard(marked())
    departures.heard(trainer_pod(0))
    assert names(departures) == []


def test_a_later_attempt_makes_the_earlier_ones_forgotten(departures):
    departures.heard(marked(0))
    departures.heard(marked(1))
    assert names(departures) == ["run-a1-worker-0"]


@pytest.mark.parametrize("labels", [{UID_LABEL: None}, {ROLE_LABEL: "prepare"}], ids=["no owner", "of a helper Job"])
def test_pods_that_are_no_attempts_are_not_remembered(departures, labels):
    departures.heard(with_labels(marked(), labels))
    assert names(departures) == []


def test_a_run_with_endless_pods_is_bounded(departures):
    for index in range(MAX_POD_UIDS + 10):
        departures.heard(marked(index=index))
    assert len(names(departures)) == MAX_POD_UIDS


def test_the_run_that_was_heard_of_longest_ago_is_forgotten_first(departures, monkeypatch):
    monkeypatch.setattr(module, "MAX_RUNS", 2)
    for uid in ("one", "two", "one", "three"):
        departures.heard(with_labels(marked(), {UID_LABEL: uid}))
    assert [uid for uid in ("one", "two", "three") if names(departures, uid)] == ["one", "three"]
