"""The models refuse what the API server refuses, in the same words: local mode has no API server."""

import pytest
from pydantic import ValidationError

from support.manifests import make_init, make_run
from support.rule_cases import AT_CREATION, message_of
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol.layout import check_relative, check_run_directory
from sweeprun_protocol.prepare import MAX_KEPT
from sweeprun_protocol.reasons import AdoptionScope, OnNoValidCheckpoint


def read(manifest):
    return SweepRun.from_wire({**manifest, "metadata": {**manifest["metadata"], "uid": "u"}})


@pytest.mark.parametrize("case", AT_CREATION, ids=str)
def test_models_hold_the_rules_of_the_crd(case):
    read(case.accepted())
    with pytest.raises(ValidationError) as refused:
        read(case.refused())
    assert message_of(case) in str(refused.value)


@pytest.mark.parametrize("case", [case for case in AT_CREATION if case.path == "spec.storage.runDirectory"], ids=str)
def test_the_protocol_agrees_on_run_directories(case):
    check_run_directory(case.good)
    with pytest.raises(ValueError, match="runDirectory"):
        check_run_directory(case.bad)


@pytest.mark.parametrize("path", ["a", "a/b", "a/../b", "/a", "a/", "a//b", "./a", "..", "a\\b"])
def test_models_are_no_more_generous_with_paths_than_the_protocol(path):
    try:
        make_run(checkpoint={"directory": path})
    except ValidationError:
        return
    check_relative(path, what="checkpoint.directory")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, OnNoValidCheckpoint.NEW_RUN),
        ({"runId": "r.7"}, OnNoValidCheckpoint.FAIL),
        ({"runId": "r.7", "resume": {"onNoValidCheckpoint": "RestartRun"}}, OnNoValidCheckpoint.RESTART_RUN),
        ({"resume": {"onNoValidCheckpoint": "Fail"}}, OnNoValidCheckpoint.FAIL),
    ],
)
def test_a_named_run_is_not_replaced_by_default(spec, expected):
    assert make_run(**spec).spec.on_no_valid_checkpoint() is expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, AdoptionScope.SAME_RUN_ID),
        ({"config": {}}, AdoptionScope.SAME_CONFIG),
        ({"init": make_init()}, AdoptionScope.SWEEP),
        ({"init": make_init(), "resume": {"adoption": {"scope": "None"}}}, AdoptionScope.NONE),
    ],
)
def test_what_is_adopted_by_default_depends_on_where_the_configuration_comes_from(spec, expected):
    assert make_run(**spec).spec.adoption_scope() is expected


@pytest.mark.parametrize("field", ["retention", "quarantine"])
@pytest.mark.parametrize(
    "value", [{"keepLast": 0}, {"keepLast": -1}, {"keepLast": MAX_KEPT + 1}, {}, {"keepLast": 1.5}]
)
def test_what_is_kept_has_a_number_and_it_is_never_none(field, value):
    for least_and_most in (1, MAX_KEPT):
        make_run(checkpoint={field: {"keepLast": least_and_most}})
    with pytest.raises(ValidationError, match="keepLast"):
        make_run(checkpoint={field: value})


def test_status_of_another_version_is_read_as_far_as_it_is_known():
    run = make_run().to_wire()
    run["status"] = {"phase": "Running", "fromTheFuture": {"a": 1}}
    assert SweepRun.from_wire(run).status.phase == "Running"


def test_what_is_written_is_read_again():
    run = make_run(runId="r.7", request={"id": "1", "action": "Retry", "fromStep": 5})
    assert SweepRun.from_wire(run.to_wire()) == run
