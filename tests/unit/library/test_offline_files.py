"""W&B's transaction log and the runs in it, whole, torn and damaged."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wandb.proto import wandb_internal_pb2 as messages

from sweeprun_trainer.offline.reading import own_files, read_all
from sweeprun_trainer.offline.sending import NotSentError, Plan, find
from sweeprun_trainer.offline.transaction_log import BLOCK, FIRST, FULL, IDENTITY, LAST, MIDDLE, TransactionLog
from sweeprun_volume.operations import Volume


def log_of(*records: bytes) -> bytes:
    """As LevelDB writes it: a record is cut at the ends of blocks, and no head is."""
    written = bytearray(IDENTITY)
    for record in records:
        rest, first = record, True
        while first or rest:
            left = BLOCK - len(written) % BLOCK
            if left < 7:
                written += bytes(left)
                left = BLOCK
            part, rest = rest[: left - 7], rest[left - 7 :]
            kind = (FULL if not rest else FIRST) if first else (LAST if not rest else MIDDLE)
            check = zlib.crc32(part, zlib.crc32(bytes([kind])))
            written += struct.pack("<IHB", check, len(part), kind) + part
            first = False
    return bytes(written)


def read(data: bytes) -> tuple[list[bytes], str | None]:
    log = TransactionLog(io.BytesIO(data))
    return list(log), log.problem


@given(st.lists(st.integers(0, 3 * BLOCK), max_size=6))
def test_records_of_every_length_come_back(lengths):
    records = [bytes([number % 251]) * length for number, length in enumerate(lengths)]
    assert read(log_of(*records)) == (records, None)


@given(st.integers(0, 100_000))
def test_a_torn_end_costs_the_records_that_it_tears_and_no_other(cut):
    records = [b"a" * 100, b"b" * 70_000, b"c"]
    data = log_of(*records)
    found, problem = read(data[: min(cut, len(data))])
    assert found == records[: len(found)]
    if cut >= len(data):
        assert (found, problem) == (records, None)


def test_damage_ends_what_can_be_believed():
    data = bytearray(log_of(b"a" * 100, b"b" * 100, b"c" * 100))
    data[len(IDENTITY) + 107 + 50] ^= 1
    assert read(bytes(data)) == ([b"a" * 100], "is damaged")


@given(st.binary(max_size=2000))
def test_anything_may_stand_in_the_file(data):
    read(data)
    read(IDENTITY + data)


def items(holder, values):
    for name, value in values.items():
        item = holder.add()
        if "." in name:
            item.nested_key.extend(name.split("."))
        else:
            item.key = name
        item.value_json = json.dumps(value)


def record(kind, **values):
    made = messages.Record()
    if kind == "history":
        made.history.step.num = values["_step"]
        items(made.history.item, values)
    elif kind == "telemetry":
        made.telemetry.feature.set_step_log = True
    elif kind == "exit":
        made.exit.exit_code = values["code"]
    elif kind == "run":
        made.run.run_id, made.run.project = values["run_id"], "p"
        items(made.run.config.update, {"lr": 1})
    else:
        items(getattr(made, kind).update, values)
    return made.SerializeToString()


def write(root: Path, epoch: int, *records: bytes, time: str = "20260101_000000") -> Path:
    directory = root / "wandb" / f"e{epoch}" / "wandb" / f"offline-run-{time}-r"
    directory.mkdir(parents=True)
    (directory / "run-r.wandb").write_bytes(log_of(*records))
    return directory


def test_a_run_is_what_its_records_say(tmp_path):
    write(
        tmp_path,
        3,
        record("run", run_id="r"),
        record("telemetry"),
        record("config", batch=32),
        record("history", _step=7, **{"loss": 0.5, "x.y": 1}),
        record("summary", best=1),
        record("exit", code=143),
    )
    (run,) = read_all(Volume(str(tmp_path)))
    assert (run.epoch, run.address, run.exit_code, run.problem) == (3, ("", "p", "r"), 143, None)
    assert (run.config, run.summary) == ({"lr": 1, "batch": 32}, {"best": 1})
    assert run.rows == {7: {"_step": 7, "loss": 0.5, "x": {"y": 1}}}
    assert run.explicit_steps


def test_epochs_are_put_in_order_by_number_and_runs_by_id(tmp_path):
    for epoch, run_id in ((10, "r"), (2, "r"), (9, "other")):
        write(tmp_path, epoch, record("run", run_id=run_id), record("telemetry"), record("history", _step=1, e=epoch))
    plans = {plan.run_id: plan for plan in find(str(tmp_path)).plans}
    assert [part.epoch for part in plans["r"].parts] == [2, 10]
    assert plans["r"].rows == {1: {"_step": 1, "e": 10}}
    assert plans["other"].rows == {1: {"_step": 1, "e": 9}}


def test_what_was_computed_again_takes_the_place_of_what_was_left(tmp_path):
    for epoch, steps in ((1, range(1, 6)), (2, range(3, 5))):
        rows = [record("history", _step=step, e=epoch) for step in steps]
        write(tmp_path, epoch, record("run", run_id="r"), record("telemetry"), *rows)
    (plan,) = find(str(tmp_path)).plans
    assert [(step, row["e"]) for step, row in plan.rows.items()] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 1)]
    assert plan.exit_code == 1, "none of them said that it ended well"


def test_only_files_of_the_training_are_sent_and_no_link_is_followed(tmp_path):
    directory = write(tmp_path, 1, record("run", run_id="r"))
    files = directory / "files"
    (files / "media").mkdir(parents=True)
    for name in ("config.yaml", "wandb-metadata.json", "media/image.png"):
        (files / name).touch()
    (tmp_path / "secret").touch()
    (files / "media" / "link.png").symlink_to(tmp_path / "secret")
    (files / "out").symlink_to(tmp_path)
    (run,) = read_all(Volume(str(tmp_path)))
    assert own_files(Volume(str(tmp_path)), run) == ["media/image.png"]


@pytest.mark.parametrize(
    "data",
    [b"", b"no log", log_of(b"\xff\xff"), log_of(record("summary", a=1)[:-1] + b"\xff")],
    ids=["empty", "foreign", "no record", "no JSON"],
)
def test_a_file_that_is_none_of_ours_is_said_and_stops_nothing(tmp_path, data):
    (write(tmp_path, 1) / "run-r.wandb").write_bytes(data)
    found = find(str(tmp_path))
    assert found.plans == ()
    assert any("offline-run-20260101_000000-r" in problem for problem in found.problems)


def test_without_anything_there_is_nothing_to_send(tmp_path):
    assert find(str(tmp_path)).plans == ()


def test_a_run_that_may_be_written_is_not_touched(tmp_path):
    (tmp_path / ".incomplete").touch()
    with pytest.raises(NotSentError, match="two writers"):
        find(str(tmp_path))


def test_the_name_of_a_run_is_its_path_in_wandb():
    assert (Plan("team", "p", "r").name, Plan("", "p", "r").name) == ("team/p/r", "p/r")
