"""What people see while a run goes on and when it has ended."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO

from rich.console import Console

from sweeprun_cli.local.closing import closing
from sweeprun_cli.local.gateway import Told
from sweeprun_cli.local.picture import Picture
from sweeprun_cli.local.progress import Steps
from sweeprun_cli.local.view import LAST_NOTES, Viewer, render
from sweeprun_operator.api.status import (
    Attempt,
    Cause,
    Counts,
    Current,
    Kind,
    PhaseSeconds,
    RefusedCheckpoint,
    Result,
    Savings,
    State,
    SweepRunStatus,
)
from sweeprun_protocol.prepare import PrepareReport
from sweeprun_protocol.reasons import Format, Outcome, RefusalReason, StartReason
from sweeprun_protocol.records import CheckpointRef, Refusal

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PATH = "checkpoints/step-000000060.e1"


def printed(renderable, *, terminal=False):
    console = Console(file=StringIO(), width=200, force_terminal=terminal)
    console.print(renderable)
    return console.file.getvalue()


def picture(**status):
    made = Picture(name="digits", total_steps=200, told=lambda note: None, started=NOW)
    made.status = SweepRunStatus(**status)
    return made


def attempts():
    first = Attempt(
        attempt=0,
        epoch=1,
        outcome=Outcome.FRESH,
        reason=StartReason.FIRST_START,
        to_step=62,
        cause=Cause.EVICTION_API,
        kind=Kind.DISRUPTION,
        evidence="DisruptionTarget [EvictionByEvictionAPI] on digits-a0-worker-0",
    )
    second = Attempt(
        attempt=1,
        epoch=2,
        outcome=Outcome.RESUME,
        reason=StartReason.WALKED_BACK,
        from_step=40,
        refused=[RefusedCheckpoint(path=PATH, reason=RefusalReason.DIGEST_MISMATCH, message="chunk 0")],
        seconds=PhaseSeconds(detect=0.02, drain=1.5, prepare=0.4, first_step=3.25),
    )
    return [first, second]


def ended():
    made = picture(
        history=attempts(),
        counts=Counts(attempts=2, resumes=1, disruptions=1),
        savings=Savings(steps_kept=40, steps_repeated=22),
    )
    made.reports[1] = PrepareReport(
        prepare=1,
        outcome=Outcome.RESUME,
        message="resume from step 40",
        checkpoint=CheckpointRef(
            step=40, epoch=1, path="checkpoints/step-000000040.e1", digest=None, format=Format.SWEEPRUN
        ),
        refused=(Refusal(PATH, RefusalReason.DIGEST_MISMATCH, "chunk 0", "model.pt"),),
        refused_count=1,
        checked_count=2,
        checked_bytes=3 << 20,
    )
    return made


def test_the_closing_tables_tell_what_happened():
    said = printed(closing(ended()))
    for words in (
        "EvictionAPI at step 62",
        "DisruptionTarget [EvictionByEvictionAPI] on digits-a0-worker-0",
        "Resume (WalkedBack), from step 40",
        "2 checkpoints, 3.0 MiB, 1 refused",
        "DigestMismatch",
        "model.pt: chunk 0",
        "40 steps kept, 22 repeated; 1 resume, 0 restarts, 0 fresh starts",
    ):
        assert words in said


def test_recovery_is_told_phase_by_phase_and_only_of_recoveries():
    said = printed(closing(ended()))
    assert [word for word in said.split("Recovery")[1].split() if "." in word][:4] == ["0.02", "1.50", "0.40", "3.25"]
    made = ended()
    made.status = made.status.model_copy(update={"history": made.status.history[:1]})
    assert "Recovery" not in printed(closing(made))


def test_an_undisturbed_run_is_told_to_be_one():
    assert "Never interrupted." in printed(closing(picture(counts=Counts(attempts=1))))


def test_a_run_that_was_refused_has_no_empty_tables():
    assert printed(closing(picture(history=[]))).strip() == ""


def test_where_nothing_was_saved_it_is_told_what_a_script_has_to_do():
    never = [attempt.model_copy(update={"reason": StartReason.NOTHING_COMMITTED}) for attempt in attempts()]
    assert "SWEEPRUN_CHECKPOINT_DIR" in printed(closing(picture(history=never)))
    assert "SWEEPRUN_CHECKPOINT_DIR" not in printed(closing(ended()))


def test_a_program_that_fails_before_its_first_step_is_not_told_to_save():
    first, second = (one.model_copy(update={"reason": StartReason.NOTHING_COMMITTED}) for one in attempts())
    for step, told in ((None, False), (3, True)):
        failed = first.model_copy(update={"kind": Kind.FAILURE, "cause": Cause.APPLICATION, "to_step": step})
        assert ("SWEEPRUN_CHECKPOINT_DIR" in printed(closing(picture(history=[failed, second])))) is told


def running():
    return picture(current=Current(attempt=1, prepare=1, state=State.RUNNING, since=NOW), history=attempts())


def test_a_living_run_shows_where_it_is():
    made = running()
    made.progressed(Steps(1, 55, 2))
    said = printed(render(made))
    assert "digits  training  attempt 1, went on from step 40" in said
    assert "step 55 of 200" in said


def test_the_step_stays_while_no_pod_answers():
    made = running()
    made.progressed(Steps(0, 62, 2))
    made.progressed(Steps(None, None, 0))
    assert "step 62 of 200" in printed(render(made))


def test_a_complete_run_shows_its_last_step():
    made = picture(result=Result(step=200))
    made.progressed(Steps(0, 195, 1))
    assert "step 200 of 200" in printed(render(made))


def test_only_the_last_notes_are_shown_as_they_are():
    made = running()
    for number in range(LAST_NOTES + 1):
        made.event(Told(NOW, "Normal", f"Reason{number}", "[bold] is no markup"))
    said = printed(render(made))
    assert "Reason0:" not in said
    assert "Reason1: [bold] is no markup" in said


def test_without_a_terminal_every_note_is_a_line():
    console = Console(file=StringIO(), width=40)
    viewer = Viewer(console)
    made = Picture(name="digits", total_steps=None, told=lambda note: viewer.told("digits", note))
    viewer.add(made)
    with viewer.showing():
        made.event(Told(NOW, "Warning", "Interrupted", "attempt 0 ended: " + "long " * 20))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 1
    assert "digits: WARNING Interrupted: attempt 0 ended" in lines[0]
