"""Checkpoints of the real Lightning: recognised by what they hold, resumable only with the optimizers' states."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import pytest

from support.volume_checkpoints import context_at, flip, largest_entry, saved, stored, zero
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.formats import Refused, Sighting, formats_of
from sweeprun_volume.formats.lightning import BEGINNING, LightningFormat
from sweeprun_volume.operations import FILE, OTHER, Entry, Volume

VERSION = "pytorch-lightning_version"
STEPS = {
    "epoch=0-step=3.ckpt": 3,
    "epoch=0-step=6.ckpt": 6,
    "epoch=0-step=6-v1.ckpt": 6,
    "epoch=1-step=9.ckpt": 9,
    "epoch=1-step=12.ckpt": 12,
    "epoch=1-step=12-v1.ckpt": 12,
    "best.ckpt": 12,
    "hpc_ckpt_1.ckpt": 12,
    "weights-step=12.ckpt": 12,
}


def recognise(root, name, data, *, chosen=False, kind=FILE):
    if data is not None:
        (root / name).write_bytes(data)
    return LightningFormat(chosen=chosen).recognise(Sighting(Volume(str(root)), name, Entry(name, kind), None))


def check(root, name, data, *, level=Level.FULL, resumable_only=True):
    (root / name).write_bytes(data)
    context = context_at(root, level=level, resumable_only=resumable_only)
    return LightningFormat().check(context, name, step=0, epoch=0)


def test_lightning_writes_what_the_tests_think_it_does(lightning_samples):
    assert lightning_samples.keys() == STEPS.keys()


@pytest.mark.parametrize(("name", "step"), STEPS.items())
def test_a_file_of_lightning_is_recognised_with_its_global_step(name, step, lightning_samples, tmp_path):
    assert recognise(tmp_path, name, lightning_samples[name]).step == step
    assert recognise(tmp_path, "epoch=7-step=700.ckpt", lightning_samples[name]).step == step, "what is inside counts"


OTHERS = {
    "a file of torch": {"step": 5, "model": 1},
    "the key deeper inside": {"epoch": 1, "inside": {"global_step": 3, VERSION: "2.6", "rest": 1}, "rest": 2},
    "the key as a value": {"epoch": 1, "name": VERSION, "rest": 2},
    "the key in a list": [1, VERSION, 2],
    "the key behind all that is looked at": {"epoch": 1, "long": "x" * BEGINNING, VERSION: "2.6"},
}


@pytest.mark.parametrize("state", OTHERS.values(), ids=OTHERS.keys())
def test_what_does_not_begin_as_lightning_writes_is_not_lightnings(state, tmp_path):
    assert recognise(tmp_path, "x.ckpt", saved(state)) is None
    assert recognise(tmp_path, "x.ckpt", saved({"global_step": 4, VERSION: "2.6", "rest": 0})).step == 4, "the twin"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_any_protocol_that_torch_save_may_be_told_is_read(protocol, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        state = {"epoch": 1, "global_step": 12, VERSION: "2.6", "state_dict": {}}
        archive.writestr("archive/data.pkl", pickle.dumps(state, protocol=protocol))
    assert recognise(tmp_path, "x.ckpt", stream.getvalue()).step == 12


@pytest.mark.parametrize("name", ["epoch=0-step=3.pt", "epoch=0-step=3.ckpt.bak", "ckpt"])
def test_only_files_that_end_in_ckpt_are_opened(name, lightning_samples, tmp_path):
    assert recognise(tmp_path, name, lightning_samples["epoch=0-step=3.ckpt"]) is None


def test_a_directory_is_not_looked_into(tmp_path):
    (tmp_path / "x.ckpt").mkdir()
    sighting = Sighting(Volume(str(tmp_path)), "x.ckpt", Entry("x.ckpt", "directory"), ())
    assert LightningFormat(chosen=True).recognise(sighting) is None


def test_no_more_than_the_beginning_is_read_to_recognise(lightning_samples, tmp_path):
    read = []

    class Counted(Volume):
        def read_at(self, descriptor, buffer, offset, path):
            count = super().read_at(descriptor, buffer, offset, path)
            read.append(count)
            return count

    (tmp_path / "x.ckpt").write_bytes(saved({"global_step": 4, VERSION: "2.6", "rest": "x" * (8 * BEGINNING)}))
    sighting = Sighting(Counted(str(tmp_path)), "x.ckpt", Entry("x.ckpt", FILE), None)
    assert LightningFormat().recognise(sighting).step == 4
    assert sum(read) < BEGINNING + 200


def test_without_a_global_step_the_name_tells_it(tmp_path):
    data = saved({VERSION: "2.6", "global_step": 9})
    assert recognise(tmp_path, "epoch=2-step=40.ckpt", data).step == 40
    assert recognise(tmp_path, "last.ckpt", data).step == 0


BEGINNINGS = {
    "empty": lambda data: b"",
    "ten bytes": lambda data: data[:10],
    "zeros in front": lambda data: zero(data, 0, 100),
    "one bit in front": lambda data: flip(data, 0),
    "a damaged key": lambda data: flip(data, data.index(VERSION.encode())),
    "no file of torch at all": lambda data: b"text " * 100,
}


@pytest.mark.parametrize("damage", BEGINNINGS.values(), ids=BEGINNINGS.keys())
def test_where_the_format_was_chosen_a_damaged_file_is_refused_and_not_overlooked(damage, lightning_samples, tmp_path):
    name = "epoch=0-step=6.ckpt"
    data = damage(lightning_samples[name])
    assert recognise(tmp_path, name, data) is None, "left to the format that takes any file of torch"
    assert recognise(tmp_path, name, data, chosen=True).step == 6
    with pytest.raises(Refused):
        check(tmp_path, name, data)


def test_a_device_is_recognised_where_the_format_was_chosen_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "step=3.ckpt")
    assert recognise(tmp_path, "step=3.ckpt", None, kind=OTHER) is None
    assert recognise(tmp_path, "step=3.ckpt", None, chosen=True, kind=OTHER).step == 3


# -- checked -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in STEPS if not name.startswith("weights")])
def test_a_whole_file_passes(name, lightning_samples, tmp_path):
    checked = check(tmp_path, name, lightning_samples[name])
    assert (checked.bytes, checked.note) == (len(lightning_samples[name]), "")


@pytest.mark.parametrize("level", Level)
def test_what_was_saved_with_weights_only_is_not_resumable(level, lightning_samples, tmp_path):
    name = "weights-step=12.ckpt"
    with pytest.raises(Refused) as refused:
        check(tmp_path, name, lightning_samples[name], level=level)
    assert refused.value.reason is RefusalReason.NOT_RESUMABLE
    check(tmp_path, name, lightning_samples[name], level=level, resumable_only=False)


@pytest.mark.parametrize("missing", ["optimizer_states", "loops"])
def test_either_state_is_needed(missing, tmp_path):
    state = {"global_step": 4, VERSION: "2.6", "optimizer_states": [], "loops": {}}
    check(tmp_path, "x.ckpt", saved(state))
    del state[missing]
    with pytest.raises(Refused) as refused:
        check(tmp_path, "x.ckpt", saved(state))
    assert refused.value.reason is RefusalReason.NOT_RESUMABLE


def test_damage_is_refused_with_its_entry(lightning_samples, tmp_path):
    name = "epoch=1-step=9.ckpt"
    data = lightning_samples[name]
    for entry in (largest_entry(data), stored(data, "data.pkl")):
        with pytest.raises(Refused) as refused:
            check(tmp_path, name, flip(data, entry.offset + entry.size // 2))
        assert (refused.value.reason, refused.value.entry) == (RefusalReason.CRC_MISMATCH, entry.name)


# -- through prepare ---------------------------------------------------------------------------------------------------


def test_lightnings_files_are_its_own_and_those_of_torch_stay_torchs():
    kinds = [item.kind for item in formats_of(Format.AUTO)]
    assert kinds.index(Format.LIGHTNING) < kinds.index(Format.TORCH)
    assert [item.kind for item in formats_of(Format.LIGHTNING)] == [Format.LIGHTNING]


def test_the_newest_whole_one_is_resumed_from_weights_and_links_are_passed_over(sweep, lightning_samples):
    sweep.prepare()
    for name in ("epoch=0-step=3.ckpt", "epoch=0-step=6.ckpt"):
        sweep.put(name, lightning_samples[name])
    damaged = lightning_samples["epoch=1-step=9.ckpt"]
    sweep.put("epoch=1-step=9.ckpt", flip(damaged, largest_entry(damaged).offset + 8))
    weights = sweep.put("weights-step=12.ckpt", lightning_samples["weights-step=12.ckpt"])
    (weights.parent / "last.ckpt").symlink_to(weights)
    report = sweep.prepare()
    assert (report.checkpoint.path, report.checkpoint.format) == ("checkpoints/epoch=0-step=6.ckpt", Format.LIGHTNING)
    assert [(item.path, item.reason) for item in report.refused] == [
        ("checkpoints/epoch=1-step=9.ckpt", RefusalReason.CRC_MISMATCH)
    ]
    assert weights.exists()


def test_weights_are_taken_where_the_format_was_chosen(sweep, lightning_samples):
    sweep.prepare()
    for name in ("epoch=0-step=6.ckpt", "weights-step=12.ckpt"):
        sweep.put(name, lightning_samples[name])
    report = sweep.prepare(format=Format.LIGHTNING)
    assert (report.checkpoint.path, report.checkpoint.step) == ("checkpoints/weights-step=12.ckpt", 12)
