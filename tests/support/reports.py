"""What prepare answers, where a test plays it."""

from __future__ import annotations

from typing import Any

from sweeprun_protocol.prepare import PrepareReport
from sweeprun_protocol.reasons import Format, Outcome, StartReason
from sweeprun_protocol.records import CheckpointRef

DIGEST = "sha256:" + "ab" * 32
CHECKPOINT = CheckpointRef(
    step=500, epoch=1, path="checkpoints/step-000000500.e1", digest=DIGEST, format=Format.SWEEPRUN
)


def make_report(number: int, outcome: Outcome, **more: Any) -> PrepareReport:
    told = {"run_id": "digits-lr.r.1", "volume_id": "volume-1", **more}
    return PrepareReport(prepare=number, outcome=outcome, message="said by the test", **told)


FRESH = make_report(0, Outcome.FRESH, reason=StartReason.FIRST_START, epoch=1)
