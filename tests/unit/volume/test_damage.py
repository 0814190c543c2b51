"""Seeded damage of every kind to checkpoints of every format, written by the real libraries.

A few seeds here, many in `make damage`, which prints the table of docs/checkpoints.md.
"""

from __future__ import annotations

import errno
import os

import pytest

from support.damage.judging import Bench, Judged, false_alarms, judge_all
from support.damage.samples import WRITERS, write_samples
from support.damage.table import escaped, table
from sweeprun_protocol.reasons import RefusalReason
from sweeprun_volume.errors import VolumeError

SEEDS = range(4)


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    return write_samples(tmp_path_factory.mktemp("samples"))


@pytest.mark.parametrize("name", WRITERS)
def test_damage_is_found(name, samples, tmp_path):
    judged = judge_all([samples[name]], SEEDS, tmp_path)
    assert len({item.kind for item in judged}) >= 15, "most kinds fit every format"
    assert escaped(judged) == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_whole_checkpoint_is_never_refused(name, samples, tmp_path):
    assert false_alarms([samples[name]], 3, tmp_path) == {name: 0}


def test_a_file_that_nobody_may_read_is_no_verdict(samples, tmp_path, monkeypatch):
    bench = Bench(samples["torch"], tmp_path / "bench")

    def failing(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(VolumeError):
        bench.look(recorded=False)


def test_the_table_shows_what_escaped():
    seen = Judged("torch", "a_bit_in_the_data", 1, RefusalReason.CRC_MISMATCH, RefusalReason.CRC_MISMATCH)
    missed = Judged("torch", "a_bit_in_the_data", 2, None, RefusalReason.DIGEST_MISMATCH)
    assert escaped([seen]) == []
    assert escaped([seen, missed]) == [missed]
    assert "50/100" in table([seen, missed], {"torch": 0}, 2)
