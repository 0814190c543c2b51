"""A run with a story: evicted, walked back from a damaged checkpoint, preempted, complete.

The picture in README.md: `PYTHONPATH=tests python -m support.shown_story docs/images/report.png`.
"""

from __future__ import annotations

import math
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from support import browser
from support.shown import shown_attempt, shown_condition, shown_run, shown_status
from sweeprun_cli.cluster.runs import Run
from sweeprun_cli.report.metrics import Line
from sweeprun_cli.report.page import page_of_run

WIDTH, HEIGHT = 1100, 1520
REFUSED = {
    "path": "checkpoints/step-000001800.e1",
    "reason": "DigestMismatch",
    "message": "chunk 0 of model.pt differs from the manifest",
    "entry": "model.pt",
}


def _at(minutes: float) -> str:
    return f"2026-01-02T{3 + int(minutes // 60):02d}:{int(minutes % 60):02d}:{int(minutes * 60 % 60):02d}Z"


def story_of_a_run() -> Run:
    history = [
        shown_attempt(
            0,
            toStep=1840,
            startTime=_at(0),
            endTime=_at(46),
            evidence="DisruptionTarget EvictionByEvictionAPI on digits-lr-0-a0-worker-0",
            node="gpu-7",
        ),
        shown_attempt(
            1,
            reason="WalkedBack",
            fromStep=1600,
            toStep=2980,
            startTime=_at(47.6),
            endTime=_at(82),
            cause="Preemption",
            evidence="DisruptionTarget PreemptionByScheduler on digits-lr-0-a1-master-0",
            node="gpu-3",
            refused=[REFUSED],
            seconds={"detect": 0.6, "drain": 31.2, "prepare": 9.4, "validation": 6.1, "start": 38.0, "firstStep": 17.5},
        ),
        shown_attempt(
            2,
            fromStep=2980,
            toStep=4000,
            startTime=_at(91),
            endTime=_at(117),
            cause="Completed",
            kind="Completion",
            evidence="every slot ended with 0",
            node=None,
            seconds={"detect": 0.4, "drain": 28.8, "prepare": 5.2, "queue": 412.0, "start": 36.1, "firstStep": 16.9},
        ),
    ]
    status = shown_status(
        "Finished",
        phase="Completed",
        runId="digits-lr.r.7",
        completionTime=_at(118),
        progress={"step": 4000, "time": _at(117)},
        counts={"attempts": 3, "resumes": 2, "disruptions": 2},
        savings={"stepsKept": 4580, "stepsRepeated": 240, "gpuSecondsKept": 13_700},
        result={"step": 4000, "metrics": {"accuracy": "0.9778", "loss": "0.0731"}},
        history=history,
        conditions=[shown_condition("Complete", reason="Completed")],
    )
    return Run.of(shown_run(status=status))


def lines_of_the_story() -> list[Line]:
    """A loss that falls, with the noise of a sine; attempt 1 repeats what attempt 0 had lost."""
    return [
        Line(one, "loss", [(step, 2.2 * math.exp(-step / 1100) + 0.05 * math.sin(step / 37) + 0.08) for step in steps])
        for one in story_of_a_run().status.history
        for steps in [range((one.from_step or 0) + 20, (one.to_step or 0) + 1, 20)]
    ]


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "report.html"
        path.write_text(page_of_run(story_of_a_run(), datetime(2026, 1, 2, 6, tzinfo=UTC), lines_of_the_story()))
        with browser.running(Path(name) / "profile") as running:
            page = running.open(path)
            page.show(width=WIDTH, height=HEIGHT)
            target.write_bytes(page.picture())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
