"""Progress as it is told: it never goes back, and the first step after the base is timed."""

import pytest

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.layout import MAX_STEP, staging_name, step_name
from sweeprun_trainer.progress import Progress, Snapshot, step_of_entry


class Seconds:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_what_becomes_of_the_rows_for_wandb_is_shown_as_the_library_says_it():
    progress = Progress(base_step=None)
    assert progress.snapshot().tracked is None
    for said in (True, False):
        progress.heard({"tracked": said})
        assert progress.snapshot().tracked is said
    with pytest.raises(RecordError, match="tracked"):
        progress.heard({"tracked": "no"})


def test_a_new_run_knows_no_step():
    assert Progress(base_step=None).snapshot() == Snapshot(None, None, None, False)


def test_a_resumed_run_begins_at_its_base():
    assert Progress(base_step=500).snapshot().step == 500


def test_steps_never_go_back():
    progress = Progress(base_step=5)
    progress.reached(9)
    progress.reached(7)
    progress.committed(8)
    progress.committed(6)
    now = progress.snapshot()
    assert (now.step, now.committed_step) == (9, 8)


def test_the_first_step_after_the_base_is_timed_from_the_entrypoints_start():
    seconds = Seconds()
    progress = Progress(base_step=5, monotonic=seconds)
    for step, at in [(5, 101.0), (6, 103.5), (7, 110.0)]:
        seconds.now = at
        progress.reached(step)
    assert progress.snapshot().first_step_seconds == 3.5


def test_a_commit_is_a_step_reached():
    seconds = Seconds()
    progress = Progress(base_step=None, monotonic=seconds)
    seconds.now = 102.0
    progress.committed(4)
    assert progress.snapshot() == Snapshot(4, 4, 2.0, False)


def test_what_a_save_cost_is_kept_and_moves_no_step():
    progress = Progress(base_step=3)
    progress.heard({"saveSeconds": 1.5})
    assert (progress.snapshot().save_seconds, progress.snapshot().step) == (1.5, 3)


def test_completion_stays():
    progress = Progress(base_step=None)
    progress.heard({"completed": True})
    progress.heard({"step": 3, "completed": False, "unknown": {}})
    assert progress.snapshot().completed


@pytest.mark.parametrize(
    "message", [{"step": -1}, {"step": MAX_STEP + 1}, {"step": True}, {"committed": "1"}, {"step": 1, "committed": 0.5}]
)
def test_what_is_no_message_changes_nothing(message):
    progress = Progress(base_step=None)
    with pytest.raises(RecordError):
        progress.heard(message)
    assert progress.snapshot().step is None


@pytest.mark.parametrize(
    ("name", "step"),
    [
        (step_name(7, 3), 7),
        (step_name(7, 2), None),  # of another epoch
        (staging_name(7, 3, "x"), None),
        ("step-7.pt", 7),
        ("model-00012.ckpt", 12),
        (".step-7.pt", None),
        ("step-7.pt.tmp", None),
        ("last.ckpt", None),
        ("notes-7.txt", None),
        ("9" * 40 + ".pt", None),
    ],
)
def test_the_name_of_an_entry_tells_its_step(name, step):
    assert step_of_entry(name, epoch=3) == step
