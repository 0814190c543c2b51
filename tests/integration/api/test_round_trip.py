"""Whatever the models accept, the API server accepts, and hands back as the same object."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from support.manifests import make_init, make_sweeprun
from sweeprun_operator.api.spec import SweepRunSpec
from sweeprun_operator.api.status import SweepRunStatus
from sweeprun_operator.api.v1alpha1 import SweepRun

NUMBERS = itertools.count()
IDENTIFIER = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", fullmatch=True)
PART = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
JSON = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OPAQUE = st.dictionaries(TEXT, JSON, max_size=3)


def fields(required=None, **optional):
    return st.fixed_dictionaries(required or {}, optional=optional)


SPEC = fields(
    required={
        "sweepName": IDENTIFIER,
        "storage": fields(
            required={"persistentVolumeClaim": fields({"claimName": st.just("sweeps")}, subPath=PART)},
            mountPath=PART.map(lambda part: f"/{part}"),
            runDirectory=PART.map(lambda part: f"{part}/{{sweepName}}/{{runId}}"),
        ),
        "template": fields({"spec": OPAQUE}, metadata=OPAQUE),
    },
    runId=IDENTIFIER,
    config=OPAQUE,
    init=st.just(make_init()),
    suspend=st.booleans(),
    request=fields({"id": TEXT, "action": st.sampled_from(["Retry", "Stop"])}, fromStep=st.integers(-1, 10**12)),
    entrypoint=fields(mode=st.sampled_from(["Auto", "Wrap"]), pythonPath=PART.map(lambda part: f"/usr/{part}")),
    checkpoint=fields(
        directory=PART | st.just("out/{epoch}"),
        format=st.sampled_from(["Auto", "Torch"]),
        retention=fields({"keepLast": st.integers(0, 3)}),
        quarantine=fields({"keepLast": st.integers(0, 3)}),
    ),
    resume=fields(
        args=st.lists(TEXT, max_size=3),
        onNoValidCheckpoint=st.sampled_from(["NewRun", "RestartRun", "Fail"]),
        adoption=fields(scope=st.sampled_from(["None", "SameRunId", "SameConfig", "Sweep"])),
    ),
    limits=fields(maxFailures=st.integers(0, 5), backoff=fields(initialSeconds=st.integers(1, 1000))),
    tracking=fields(wandb=fields(mode=st.sampled_from(["Online", "Offline"]), project=TEXT)),
    helperPods=fields(labels=st.dictionaries(PART, PART, max_size=2), resources=OPAQUE),
    ttlSecondsAfterFinished=st.integers(0, 5),
)


def accepted_by_the_models(spec):
    try:
        SweepRunSpec.model_validate(spec)
    except ValueError:
        return False
    return True


@seed(20)
@settings(
    max_examples=30,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(spec=SPEC.filter(accepted_by_the_models))
def test_a_spec_that_the_models_accept_is_accepted_by_the_api_server(cluster, spec):
    manifest = make_sweeprun(f"generated-{next(NUMBERS)}")
    manifest["spec"] = spec
    answer = cluster.call(
        "POST", cluster._path("SweepRun"), json=manifest, params={"dryRun": "All", "fieldValidation": "Strict"}
    )
    # The server's defaults are the models' own.
    assert SweepRun.from_wire(answer).spec == SweepRunSpec.model_validate(spec)


def test_a_status_with_every_field_is_kept_whole(cluster):
    status = full(SweepRunStatus)
    there = cluster.create(make_sweeprun())
    answer = cluster.call(
        "PUT",
        cluster._path("SweepRun", "digits-lr-0") + "/status",
        json={**there, "status": status.to_wire()},
        params={"fieldValidation": "Strict"},
    )
    assert SweepRun.from_wire(answer).status == status


def full(model):
    """An instance with a value in every field, so that none is missing in the schema."""
    schema = model.model_json_schema()
    return model.model_validate(example_of(schema, schema["$defs"]))


def example_of(node, definitions):
    if "$ref" in node:
        return example_of(definitions[node["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in node:
        return example_of(node["anyOf"][0], definitions)
    if "enum" in node:
        return node["enum"][0]
    match node["type"]:
        case "object" if "properties" in node:
            return {name: example_of(child, definitions) for name, child in node["properties"].items()}
        case "object":
            return {"key": example_of(node["additionalProperties"], definitions)}
        case "array":
            return [example_of(node["items"], definitions)]
        case "boolean":
            return True
        case "integer":
            return 7
        case "number":
            return 1.5
        case "string" if node.get("format") == "date-time":
            return datetime(2026, 1, 1, 12, 30, 0, 250_000, tzinfo=UTC).isoformat()
        case "string":
            return "Word"
    pytest.fail(f"no example for {node}")
