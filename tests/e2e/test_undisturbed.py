"""A run that nothing interrupts behaves as the plain PyTorchJob would."""

import pytest

KINDS = ["library", "plain"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_never_interrupted_completes_in_one_attempt(kind, undisturbed):
    told = undisturbed(kind)
    status = told.status
    assert status["counts"]["attempts"] == 1
    assert (status["counts"]["resumes"], status["counts"]["restarts"], status["counts"]["freshStarts"]) == (0, 0, 0)
    assert status["current"]["prepare"] == 1, "two prepares: p0 before and p1 after"
    assert [attempt["cause"] for attempt in told.history()] == ["Completed"]
    assert not (told.run_directory / ".incomplete").exists()
    assert (told.run_directory / "result.json").exists()


def test_the_library_and_the_plain_script_end_in_the_same_state(undisturbed):
    assert undisturbed("library").digest() == undisturbed("plain").digest()


def test_the_result_is_in_status(undisturbed):
    told = undisturbed("library")
    assert told.status["result"]["metrics"]["final_digest"] == told.digest()
    assert float(told.status["result"]["metrics"]["accuracy"]) > 0.5


def test_it_is_one_wandb_run_with_every_step_once(undisturbed, journal):
    told = undisturbed("library")
    run = journal(told.status["wandbRunId"])
    assert run.inserted_count == 1
    assert run.duplicate_steps() == []
    assert run.missing_steps(run.steps[0], run.steps[-1]) == []
    assert run.exit_codes == [0]
