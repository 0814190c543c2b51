import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeprun_protocol import layout
from sweeprun_protocol.names import is_file_name, is_run_id, is_slot, is_sweep_name
from sweeprun_protocol.reasons import Format


@pytest.mark.parametrize("good", ["a", "digits-lr.r.7", "A_b-1", "x" * 63])
def test_run_ids_that_a_directory_a_label_and_wandb_accept(good):
    assert is_run_id(good)
    assert is_sweep_name(good)


@pytest.mark.parametrize(
    "bad", ["", "a/b", "..", ".", "-a", "a-", "a b", "x" * 64, "a\n", "é", "r1.incomplete", ".hidden", "a:b"]
)
def test_run_ids_that_one_of_them_refuses(bad):
    assert not is_run_id(bad)


@pytest.mark.parametrize("bad", ["worker", "worker-", "Worker-0", "worker-00000", "../start", "worker-0\n"])
def test_slots_are_strict(bad):
    assert is_slot("worker-0")
    assert not is_slot(bad)


@pytest.mark.parametrize("bad", [".x", "a/b", "", "a\x00", "a\n", "x" * 129])
def test_plain_file_names_are_strict(bad):
    assert is_file_name("train_config_overrides.yaml")
    assert not is_file_name(bad)


@given(st.integers(0, layout.MAX_STEP), st.integers(1, layout.MAX_EPOCH))
def test_a_step_directory_name_is_parsed_to_what_it_was_made_of(step, epoch):
    assert layout.parse_step_name(layout.step_name(step, epoch)) == (step, epoch)
    assert layout.parse_step_name(layout.staging_name(step, epoch, "u")) is None


@pytest.mark.parametrize("name", ["step-000000100.tmp", "old-step-000000100.e1", "step-100.e1", "step-000000100.e1\n"])
def test_names_that_only_look_like_a_step_directory_are_not_one(name):
    assert layout.parse_step_name(name) is None


KEY = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    "name",
    [
        f"{KEY}.e0.Full.whole.json",
        f"{KEY}.e01.Full.whole.json",
        f"{KEY}.e1234567.Full.whole.json",
        f"{KEY}.e1.full.whole.json",
        f"{KEY}.e1.Full.passed.json",
        f"{KEY[1:]}.e1.Full.whole.json",
        f"{KEY.upper()}.e1.Full.whole.json",
        f"{KEY}.e1.Full.whole.json\n",
        f".tmp-{KEY}.e1.Full.whole.json",
    ],
)
def test_names_that_only_look_like_a_verdict_are_not_one(name):
    assert str(layout.parse_verdict_name(f"{KEY}.e1.Full.whole.json")) == f"{KEY}.e1.Full.whole.json"
    assert layout.parse_verdict_name(name) is None


def test_what_is_no_utf_8_has_a_key_as_well():
    assert layout.verdict_key(Format.TORCH, "a\udc80.pt", size=1, mtime_ns=1)


@given(st.integers(1, layout.MAX_EPOCH))
def test_claim_names_sort_as_their_epochs(epoch):
    assert layout.parse_claim_name(layout.claim_name(epoch)) == epoch
    if epoch < layout.MAX_EPOCH:
        assert layout.claim_name(epoch) < layout.claim_name(epoch + 1)


@pytest.mark.parametrize(
    "template",
    ["runs", "runs/{runId}/x", "/abs/{runId}", "../{runId}", "a/../{runId}", "a//{runId}", "{x}/{runId}", "{runId}"],
)
def test_run_directories_that_mix_runs_or_leave_the_volume_are_refused(template):
    with pytest.raises(ValueError, match="runDirectory"):
        layout.expand_run_directory(template, sweep_name="s", run_id="r")


def test_a_run_directory_is_expanded():
    template = "sweep/{sweepName}/runs/{runId}"
    assert layout.expand_run_directory(template, sweep_name="s", run_id="r.1") == "sweep/s/runs/r.1"
