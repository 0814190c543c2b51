from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeprun_protocol.codec import RecordError, dump, parse
from sweeprun_protocol.environ import EnvironError, PodEnvironment, RunEnvironment
from sweeprun_protocol.layout import parse_verdict_name
from sweeprun_protocol.manifest import CHUNK, Manifest, ManifestFile, digest_of
from sweeprun_protocol.prepare import REPORT_BYTES, Adoption, Candidate, Configuration, PrepareReport, PrepareRequest
from sweeprun_protocol.reasons import (
    AdoptionScope,
    CompletionPolicy,
    Format,
    Level,
    OnNoValidCheckpoint,
    Outcome,
    RefusalReason,
    StartReason,
)
from sweeprun_protocol.records import CheckpointRef, Decision, EndRecord, Owner, Refusal
from sweeprun_protocol.verdicts import Verdict

OWNER = Owner(cluster="c", namespace="n", name="digits-lr-0", uid="u-1")
DIGEST = "sha256:" + "0" * 64


def make_request(**changes):
    request = PrepareRequest(
        owner=OWNER,
        prepare=3,
        sweep_name="digits-lr",
        run_directory="sweep/{sweepName}/runs/{runId}",
        run_id="r.1",
        started=True,
        volume_id="v",
        known_epoch=2,
        pinned=CheckpointRef(
            step=500, epoch=2, path="checkpoints/step-000000500.e2", digest=DIGEST, format=Format.SWEEPRUN
        ),
        slots=("master-0", "worker-0"),
        completion=CompletionPolicy.EXIT_CODE,
        configuration=Configuration(file_name="train_config_overrides.yaml", text='lr: "0.01"\n'),
        init_key=None,
        fresh_number=0,
        adoption=Adoption(scope=AdoptionScope.SAME_CONFIG, idle_seconds=900),
        checkpoint_directory="checkpoints",
        format=Format.AUTO,
        level=Level.FULL,
        timeout_seconds=900,
        resume=True,
        from_step=None,
        on_no_valid_checkpoint=OnNoValidCheckpoint.NEW_RUN,
        wandb_run_id=None,
    )
    return replace(request, **changes)


def make_end(slot):
    return EndRecord(
        epoch=1,
        slot=slot,
        pod_uid="p" * 36,
        exit_code=0,
        told_to_stop=False,
        completed=True,
        last_step=10**6,
        first_step_seconds=1.5,
        time=1.0,
    )


def test_the_bounds_of_what_is_kept_survive_the_way_to_the_pod():
    request = make_request(keep_last=1, quarantine_keep_last=2)
    assert PrepareRequest.decode(request.encode()) == request
    body = parse(make_request().encode().encode(), where="x")
    assert not {"keepLast", "quarantineKeepLast"} & set(body), "absent: nothing is deleted"


def test_a_request_survives_the_way_to_the_pod():
    for request in (make_request(), make_request(run_id=None, pinned=None, volume_id=None, init_key="k", from_step=7)):
        assert PrepareRequest.decode(request.encode()) == request


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sweepName", "../x"),
        ("runDirectory", "../{runId}"),
        ("checkpointDirectory", "/etc"),
        ("runId", "a/b"),
        ("format", "Pickle"),
        ("prepare", -1),
        ("keepLast", 0),
        ("quarantineKeepLast", 0),
    ],
)
def test_a_request_that_would_leave_the_volume_or_makes_no_sense_is_refused(field, value):
    body = parse(make_request().encode().encode(), where="x")
    body[field] = value
    with pytest.raises(RecordError):
        PrepareRequest.decode(dump(body).decode())


@given(st.text(max_size=3000), st.integers(0, 20), st.integers(0, 40), st.integers(0, 32))
def test_a_report_always_fits_into_a_termination_message(message, refused, candidates, metrics):
    report = PrepareReport(
        prepare=1,
        outcome=Outcome.RESUME,
        message=message,
        reason=StartReason.WALKED_BACK,
        run_id="r" * 63,
        epoch=999_999,
        checkpoint=CheckpointRef(step=1, epoch=1, path="p/" * 100 + "x", digest=DIGEST, format=Format.SWEEPRUN),
        metrics={f"m{number}": "1" * 64 for number in range(metrics)},
        ends=tuple(make_end(f"worker-{number}") for number in range(20)),
        refused=(Refusal(path="p" * 300, reason=RefusalReason.TRUNCATED, message="m" * 300, entry="e" * 300),)
        * refused,
        candidates=(Candidate(run_id="r" * 63, epoch=1, owner=replace(OWNER, name="n" * 253), idle_seconds=1),)
        * candidates,
    )
    data = report.encode()
    assert len(data) <= REPORT_BYTES
    back = PrepareReport.decode(data)
    assert (back.outcome, back.run_id, back.epoch, back.checkpoint) == (
        report.outcome,
        report.run_id,
        report.epoch,
        report.checkpoint,
    )
    assert back.refused_count == max(refused, 0)


@given(st.binary(max_size=300))
def test_a_hostile_report_is_refused_never_half_read(data):
    with pytest.raises(RecordError):
        PrepareReport.decode(data)


def test_a_decision_survives_the_volume():
    decision = Decision(
        epoch=2,
        prepare=1,
        outcome=Outcome.RESTART,
        reason=StartReason.NOTHING_COMMITTED,
        message="m",
        base=None,
        eligible=(CheckpointRef(step=1, epoch=1, path="a/b", digest=None, format=Format.SWEEPRUN),),
        refused=(Refusal(path="a", reason=RefusalReason.CRC_MISMATCH, message="m", entry="a:data/0", offset=64),),
        slots=("master-0",),
        completion=CompletionPolicy.EXPLICIT,
        checkpoint_directory="checkpoints/{epoch}",
    )
    assert Decision.from_value(parse(dump(decision.to_dict()), where="x"), "x") == decision


REFUSAL = Refusal(path="a/step-5.pt", reason=RefusalReason.CRC_MISMATCH, message="m", entry="data/0", offset=64)


def make_verdict(**changes):
    verdict = Verdict(
        path="a/step-5.pt",
        format=Format.TORCH,
        size=CHUNK + 1,
        mtime_ns=-(1 << 60),
        inode=(1 << 64) - 1,
        level=Level.FULL,
        chosen=Format.AUTO,
        epoch=2,
        prepare=1,
        time=5.0,
        bytes=CHUNK + 1,
        seconds=1.5,
    )
    return replace(verdict, **changes)


FIRST = {
    "digest": DIGEST,
    "uncovered": 7,
    "world_size": 8,
    "note": "n",
    "algorithm": "xxh3-128",
    "files": (ManifestFile(path="step-5.pt", size=CHUNK + 1, chunks=("0" * 32, "1" * 32)),),
}


@pytest.mark.parametrize(
    "changes",
    [{}, FIRST, {"refusal": REFUSAL, "expected": DIGEST}],
    ids=["whole", "first", "refused"],
)
def test_a_verdict_survives_the_volume_under_the_name_of_what_it_found(changes, request):
    verdict = make_verdict(**changes)
    assert Verdict.from_value(parse(dump(verdict.to_dict()), where="x"), "x") == verdict
    kind = request.node.callspec.id
    assert str(verdict.name).endswith(f".e2.Full.{kind}.json")
    assert parse_verdict_name(str(verdict.name)) == verdict.name


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "../up"},
        {"format": "Pickle"},
        {"epoch": 0},
        {"size": -1},
        {"mtimeNs": 5},
        {"mtimeNs": "--5"},
        {"inode": "1" * 30},
        {"digest": "sha1:0"},
        {"algorithm": "md5"},
        {"note": "n" * 301},
        {"worldSize": 0},
        {"files": None},
        {"files": [{"path": "a", "size": 0, "chunks": []}] * 2},
        {"files": [{"path": "a", "size": 1, "chunks": []}]},
        {"refusal": REFUSAL.to_dict()},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_verdict_that_makes_no_sense_is_refused(changes):
    told = make_verdict(**FIRST).to_dict()
    Verdict.from_value(told, "x")
    with pytest.raises(RecordError):
        Verdict.from_value({**told, **changes}, "x")


def test_a_refusal_of_another_path_than_the_verdict_is_refused():
    with pytest.raises(RecordError, match="another path"):
        Verdict.from_value(make_verdict(refusal=replace(REFUSAL, path="b")).to_dict(), "x")


@pytest.mark.parametrize(
    "changes",
    [{"path": "a/step-6.pt"}, {"format": Format.LIGHTNING}, {"size": 1}, {"mtime_ns": 1}],
    ids=lambda changes: next(iter(changes)),
)
def test_another_checkpoint_or_another_state_of_it_has_another_key(changes):
    assert make_verdict(**changes).name.key != make_verdict().name.key
    assert make_verdict(inode=1, level=Level.FAST, chosen=Format.TORCH).name.key == make_verdict().name.key


@pytest.mark.parametrize("path", ["../up", "/abs", "a//b", "a/./b", ""])
def test_a_record_cannot_point_out_of_the_run(path):
    with pytest.raises(RecordError, match="path below"):
        CheckpointRef.from_value({"step": 1, "epoch": 1, "path": path, "format": "SweepRun"}, "x")


def make_manifest(*files):
    return Manifest(run_id="r", epoch=1, step=5, world_size=2, algorithm="xxh3-128", files=files, resumable=True)


def test_a_manifest_survives_and_its_digest_covers_every_field():
    manifest = make_manifest(ManifestFile(path="model.pt", size=CHUNK + 1, chunks=("0" * 32, "1" * 32)))
    data = manifest.encode()
    assert Manifest.decode(data, where="x") == manifest
    assert digest_of(data) != digest_of(replace(manifest, step=6).encode())


@pytest.mark.parametrize(
    "files",
    [
        (ManifestFile(path="a", size=1, chunks=()),),
        (ManifestFile(path="a", size=0, chunks=("0" * 32,)),),
        (ManifestFile(path="a", size=1, chunks=("0" * 31,)),),
        (ManifestFile(path="../a", size=0, chunks=()),),
        (ManifestFile(path="a", size=0, chunks=()),) * 2,
    ],
    ids=["chunk missing", "chunk too many", "short digest", "path leaves", "named twice"],
)
def test_a_manifest_that_does_not_name_every_byte_once_is_refused(files):
    with pytest.raises(RecordError):
        Manifest.decode(make_manifest(*files).encode(), where="x")


def make_environment(**changes):
    environment = RunEnvironment(
        run_id="r.1",
        sweep_name="s",
        run_dir="/data/sweep/s/runs/r.1",
        checkpoint_dir="/data/sweep/s/runs/r.1/checkpoints",
        config_file=None,
        epoch=2,
        attempt=1,
        slots=["master-0", "worker-0"],
        grace_seconds=30,
        resume_from="/data/x",
        resume_step=5,
        resume_epoch=1,
        resume_digest=DIGEST,
        resume_format="SweepRun",
        resume_args="--resume-from /data/x",
    )
    return replace(environment, **changes)


def test_the_environment_that_the_operator_encodes_is_what_the_entrypoint_decodes():
    fresh = make_environment(
        resume_from=None, resume_step=None, resume_epoch=None, resume_digest=None, resume_format=None, resume_args=""
    )
    for environment in (make_environment(), fresh):
        assert RunEnvironment.decode(environment.encode()) == environment


def test_digits_of_other_scripts_are_no_whole_number():
    variables = make_environment().encode()
    variables["SWEEPRUN_EPOCH"] = "²"
    with pytest.raises(EnvironError, match="SWEEPRUN_EPOCH"):
        RunEnvironment.decode(variables)


@pytest.mark.parametrize("name", ["SWEEPRUN_RUN_ID", "SWEEPRUN_EPOCH", "SWEEPRUN_SLOTS", "SWEEPRUN_GRACE_SECONDS"])
def test_a_missing_or_senseless_variable_is_named(name):
    for value in (None, "../x"):
        variables = make_environment().encode()
        variables.pop(name)
        if value:
            variables[name] = value
        with pytest.raises(EnvironError, match=name):
            RunEnvironment.decode(variables)


def test_a_pod_knows_its_slot_by_the_downward_api():
    pod = PodEnvironment.decode(
        {
            "SWEEPRUN_REPLICA_TYPE": "Worker",
            "SWEEPRUN_REPLICA_INDEX": "1",
            "SWEEPRUN_POD_UID": "u",
            "SWEEPRUN_POD_NAME": "p",
        }
    )
    assert pod.slot == "worker-1"
