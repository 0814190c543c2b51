"""The operator writes the environment, the trainer reads it; resume.args refer to it by name."""

import dataclasses
import re
from pathlib import Path

import pytest

from sweeprun_operator.api import acceptance
from sweeprun_protocol import environ
from sweeprun_protocol.environ import EnvironError, PodEnvironment, RunEnvironment

RESUMED = RunEnvironment(
    run_id="digits.7",
    sweep_name="digits",
    run_dir="/data/sweep/digits/runs/digits.7",
    checkpoint_dir="/data/sweep/digits/runs/digits.7/checkpoints",
    config_file="/data/sweep/digits/runs/digits.7/train_config_overrides.yaml",
    epoch=3,
    attempt=2,
    slots=["master-0", "worker-0"],
    grace_seconds=30,
    resume_from="/data/sweep/digits/runs/digits.7/checkpoints/step-000000500.e2",
    resume_step=500,
    resume_epoch=2,
    resume_digest="sha256:" + "0" * 64,
    resume_format="SweepRun",
    resume_args="--resume-from x",
    stall_seconds=600,
)
FRESH = dataclasses.replace(
    RESUMED,
    config_file=None,
    resume_from=None,
    resume_step=None,
    resume_epoch=None,
    resume_digest=None,
    resume_format=None,
    resume_args="",
    stall_seconds=None,
)
POD = {
    environ.REPLICA_TYPE: "Worker",
    environ.REPLICA_INDEX: "1",
    environ.POD_UID: "u",
    environ.POD_NAME: "digits-a2-worker-1",
    environ.NODE_NAME: "n",
}
NAMES = {value for name, value in vars(environ).items() if name.isupper() and isinstance(value, str) and "_" in value}


@pytest.mark.parametrize("given", [RESUMED, FRESH], ids=["resumed", "fresh"])
def test_what_the_operator_writes_is_what_the_trainer_reads(given):
    assert RunEnvironment.decode(given.encode()) == given


@pytest.mark.parametrize("name", sorted(FRESH.encode()))
def test_a_missing_variable_is_named_unless_it_may_be_empty(name):
    lacking = {key: value for key, value in FRESH.encode().items() if key != name}
    if name == environ.RESUME_ARGS:
        assert RunEnvironment.decode(lacking) == FRESH
        return
    with pytest.raises(EnvironError, match=name):
        RunEnvironment.decode(lacking)


def test_the_slot_comes_from_the_pods_own_labels():
    assert PodEnvironment.decode(POD).slot == "worker-1"


def test_every_variable_is_in_the_name_space_that_users_may_not_use():
    ours = {*RESUMED.encode(), *POD, environ.INIT_DIR, environ.INIT_KEY, environ.PYTHON_PATH, environ.HISTORY}
    assert ours <= NAMES
    assert all(name.startswith("SWEEPRUN_") for name in ours)
    assert environ.WANDB_RUN_ID in acceptance.OWN_VARIABLES


def test_variables_that_messages_name_exist():
    named = set(re.findall(r"\$(SWEEPRUN_[A-Z_]+)", Path(acceptance.__file__).read_text()))
    assert named
    assert named <= NAMES
