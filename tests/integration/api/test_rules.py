"""Every rule of the CRD against the real API server: what it lets pass, what it refuses, and what it says then."""

import pytest

from support.cluster import RefusedError
from support.manifests import make_sweeprun, make_template, with_value
from support.rule_cases import AT_CREATION, ON_CHANGE, Case, message_of, messages


def dry_create(cluster, manifest):
    return cluster.call("POST", cluster._path("SweepRun"), json=manifest, params={"dryRun": "All"})


def dry_replace(cluster, manifest):
    path = cluster._path("SweepRun", manifest["metadata"]["name"])
    return cluster.call("PUT", path, json=manifest, params={"dryRun": "All"})


@pytest.mark.parametrize("case", AT_CREATION, ids=str)
def test_a_wrong_manifest_is_refused_at_apply(case, cluster):
    dry_create(cluster, case.accepted())
    with pytest.raises(RefusedError) as refused:
        dry_create(cluster, case.refused())
    assert refused.value.code == 422
    assert message_of(case) in refused.value.message


@pytest.mark.parametrize("case", ON_CHANGE, ids=str)
def test_what_must_stay_cannot_be_changed(case, cluster):
    there = cluster.create(make_sweeprun(**case.spec))
    dry_replace(cluster, with_value(there, case.path, case.good))
    with pytest.raises(RefusedError) as refused:
        dry_replace(cluster, with_value(there, case.path, case.bad))
    assert refused.value.code == 422
    assert message_of(case) in refused.value.message


def test_every_rule_has_its_case():
    assert {message_of(case) for case in [*AT_CREATION, *ON_CHANGE]} == set(messages())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.suspend", True),
        ("spec.request", {"id": "1", "action": "Stop"}),
        ("spec.limits.maxFailures", 9),
        ("spec.resume.policy", "Never"),
        ("spec.checkpoint.validation.level", "Fast"),
        ("spec.checkpoint.retention", {"keepLast": 3}),
        ("spec.checkpoint.quarantine", {"keepLast": 1}),
        ("spec.entrypoint.containerName", "trainer"),
        ("spec.ttlSecondsAfterFinished", 0),
        ("spec.template", make_template(workers=3)),
    ],
)
def test_what_may_be_edited_can_be_edited(path, value, cluster):
    there = cluster.create(make_sweeprun())
    changed = dry_replace(cluster, with_value(there, path, value))
    assert changed["metadata"]["generation"] == there["metadata"]["generation"] + 1


@pytest.mark.parametrize("field", ["retention", "quarantine"])
def test_what_is_kept_can_be_changed_and_left_to_grow_again(field, cluster):
    there = cluster.create(make_sweeprun(checkpoint={field: {"keepLast": 3}}))
    changed = dry_replace(cluster, with_value(there, f"spec.checkpoint.{field}.keepLast", 1))
    assert changed["spec"]["checkpoint"][field] == {"keepLast": 1}
    assert field not in dry_replace(cluster, with_value(there, f"spec.checkpoint.{field}", None))["spec"]["checkpoint"]


def test_an_edit_of_something_else_passes_where_everything_is_set(cluster):
    """Immutable fields compare equal with themselves, opaque ones included."""
    there = cluster.create(make_sweeprun(runId="r.7", config={"lr": [1, 2.5, None, {"a": "b"}]}))
    assert dry_replace(cluster, with_value(there, "spec.suspend", True))["spec"]["suspend"] is True


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec.runId", "a/b", "spec.runId"),
        ("spec.sweepName", None, "spec.sweepName: Required value"),
        ("spec.resume.policy", "Sometimes", 'supported values: "Always", "OnDisruption", "Never"'),
        ("spec.limits.maxFailures", 0, "should be greater than or equal to 1"),
        ("spec.checkpoint.retention", {"keepLast": 0}, "should be greater than or equal to 1"),
        ("spec.checkpoint.retention", {}, "spec.checkpoint.retention.keepLast: Required value"),
        ("spec.checkpoint.quarantine", {"keepLast": 0}, "should be greater than or equal to 1"),
        ("spec.template.kind", "TrainJob", 'supported values: "PyTorchJob"'),
        ("spec.resume.args", ["--from", 5], "must be of type string"),
    ],
)
def test_the_schema_says_what_is_wrong_where(path, value, words, cluster):
    with pytest.raises(RefusedError) as refused:
        dry_create(cluster, with_value(make_sweeprun(), path, value))
    assert words in refused.value.message


def test_a_misspelt_field_is_refused_where_kubectl_asks_for_it(cluster):
    manifest = with_value(make_sweeprun(), "spec.resume.onNoValidCheckpiont", "Fail")
    with pytest.raises(RefusedError, match=r"unknown field .spec.resume.onNoValidCheckpiont"):
        cluster.call("POST", cluster._path("SweepRun"), json=manifest, params={"fieldValidation": "Strict"})


def test_opaque_fields_are_kept_whole_and_lift_no_rule(cluster):
    odd = {"oldSelf": None, "x-kubernetes-validations": [{"rule": "true"}], "a b": {"/": [1, {"": 2.5}]}}
    manifest = with_value(make_sweeprun(config=odd), "spec.template.spec.future", odd)
    there = cluster.create(manifest)
    # The API server drops nulls nowhere below an opaque object.
    assert there["spec"]["config"] == odd
    assert there["spec"]["template"]["spec"]["future"] == odd
    case = Case("storage cannot be changed", "spec.storage.mountPath", "/data", "/elsewhere")
    with pytest.raises(RefusedError) as refused:
        dry_replace(cluster, with_value(there, case.path, case.bad))
    assert message_of(case) in refused.value.message


def test_absent_fields_get_the_defaults_of_the_models(cluster):
    there = dry_create(cluster, make_sweeprun())["spec"]
    assert there["limits"] == {
        "maxFailures": 3,
        "maxNeverStarted": 20,
        "maxAttemptsWithoutProgress": 10,
        "startTimeoutSeconds": 1800,
        "backoff": {"initialSeconds": 10, "maxSeconds": 600},
    }
    assert there["resume"] == {"policy": "Always", "args": [], "adoption": {"idleSeconds": 900}}
    assert "runId" not in there
    assert "tracking" not in there
