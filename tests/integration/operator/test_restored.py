"""A status that was lost or set back, as by a restore, is rebuilt from what is there and from the volume."""

from __future__ import annotations

import pytest

from support.manifests import make_claim, make_sweeprun
from support.passes import Passes
from support.reports import CHECKPOINT, make_report
from sweeprun_protocol.reasons import Outcome, StartReason

NAME = "run"


@pytest.fixture
async def story(gateway, decisions, cluster):
    """Of a run that trains."""
    cluster.create(make_claim())
    cluster.create(make_sweeprun(NAME))
    made = Passes(gateway, decisions, cluster, NAME)
    await made.trains()
    await made.settle()
    return made


async def resumes(story, prepare, attempt, epoch):
    more = {"reason": StartReason.NEWEST_CHECKPOINT, "epoch": epoch, "checkpoint": CHECKPOINT, "last_step": 540}
    await story.trains(make_report(prepare, Outcome.RESUME, **more), attempt=attempt)


def reasons(story):
    return [event["reason"] for event in story.cluster.events_of(NAME)]


# -- the status --------------------------------------------------------------------------------------------------------


async def test_a_status_that_was_lost_is_rebuilt_and_nothing_runs_twice(story):
    story.cluster.patch("SweepRun", NAME, {"status": None}, subresource="/status")
    await story.settle()
    assert "StatusRebuilt" in reasons(story)
    assert story.cluster.get("PyTorchJob", "run-a0") is None
    assert "run-p1" not in story.created(), "its pods are still there"
    story.played.collect_garbage()
    await resumes(story, 1, 1, 2)
    assert story.created() == ["run-p0", "run-a0", "run-p1", "run-a1"]
    assert (story.status["runId"], story.status["checkpoint"]["step"]) == ("digits-lr.r.1", 500)
    assert story.status["current"]["attempt"] == 1


async def test_a_status_that_was_set_back_goes_on_behind_what_is_there(story):
    backup = story.status
    story.cluster.evict("run-a0-worker-0")
    story.played.job_status("run-a0", "Failed")
    await story.state("Draining")
    story.played.collect_garbage()
    await resumes(story, 1, 1, 2)
    story.cluster.patch("SweepRun", NAME, {"status": None}, subresource="/status")
    story.cluster.patch("SweepRun", NAME, {"status": backup}, subresource="/status")
    await story.settle()
    assert "StatusRebuilt" in reasons(story)
    assert "run-p2" not in story.created(), "the pods of attempt 1 are still there"
    story.played.collect_garbage()
    await resumes(story, 2, 2, 3)
    made = story.created()
    assert made == ["run-p0", "run-a0", "run-p1", "run-a1", "run-p2", "run-a2"]
    assert story.status["current"]["epoch"] == 3


async def test_a_status_that_nobody_touched_is_not_rebuilt(story):
    await story.settle()
    assert "StatusRebuilt" not in reasons(story)
    assert story.created() == ["run-p0", "run-a0"]
