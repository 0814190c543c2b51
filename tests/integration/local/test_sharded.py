"""The example of a model that is cut over the ranks: evicted, it goes on from what both ranks saved together."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from sweeprun_cli.local.containers import IMAGE_EXAMPLES
from sweeprun_cli.local.faults import Fault, Means
from sweeprun_cli.local.manifest import load
from sweeprun_cli.local.run import End, LocalRun, Options
from sweeprun_protocol.reasons import StartReason

EXAMPLES = Path(__file__).parents[3] / "examples"
EVICTED_AT = 120

pytestmark = pytest.mark.timeout(300)


def test_an_evicted_run_goes_on_with_the_shards_of_both_ranks(tmp_path):
    options = Options(
        root=tmp_path / "volume",
        logs=tmp_path / "logs",
        faults=(Fault(Means.EVICT, EVICTED_AT, None),),
        timeout_seconds=240,
        paths=((IMAGE_EXAMPLES, str(EXAMPLES)),),
    )
    one = LocalRun(load(EXAMPLES / "sharded" / "sweeprun.yaml"), options, told=lambda note: print(note.text))
    assert asyncio.run(one.run()) is End.COMPLETE
    status = one.picture.status
    assert (status.counts.resumes, status.counts.restarts) == (1, 0)
    assert [attempt.reason for attempt in status.history] == [StartReason.FIRST_START, StartReason.NEWEST_CHECKPOINT]
    resumed_from = status.history[1].from_step or 0
    assert resumed_from >= EVICTED_AT, "both saved what they had when they were told to stop"
    (manifest,) = (tmp_path / "volume").rglob(f"step-{resumed_from:09d}.e1/manifest.json")
    shards = {file["path"] for file in json.loads(manifest.read_text())["files"] if file["path"].endswith(".distcp")}
    assert {name.split("_")[2] for name in shards} == {"0", "1"}, shards
