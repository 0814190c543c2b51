"""`python -m bench.scale [SUBJECT...] [--runs N] [--seconds S]`, from the folder tests."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
import tempfile
from pathlib import Path

from bench.__main__ import WIDTHS
from support.control_plane import running

from .client import Bare, Server
from .fleet import prepare_cluster
from .place import Place

SUBJECTS = {"idle": 5000, "evictions": 1000, "neighbours": 1000, "side_by_side": 1000, "unthrottled": 1000}
"""And the runs of each."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-scale ARGS=...")
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], default=[])
    parser.add_argument("--runs", type=int, help="instead of the full size")
    parser.add_argument("--seconds", type=float, default=400, help="how long a state without events is watched")
    given = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}")
    for subject in given.subjects or SUBJECTS:
        print(f"\n{subject}", flush=True)
        asyncio.run(_measure(subject, given.runs or SUBJECTS[subject], given.seconds))
    return 0


async def _measure(subject: str, runs: int, seconds: float) -> None:
    module = importlib.import_module(f"bench.scale.{subject}")
    with running(start_seconds=600) as plane, tempfile.TemporaryDirectory(prefix="sweeprun-scale-") as name:
        async with Bare(Server.of(plane)) as bare:
            await prepare_cluster(bare)
            async for row in module.measure(Place(bare, plane.kubeconfig, Path(name), runs, seconds)):
                *cells, detail = row.cells()
                table = "".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
                print(f"  {table}{detail}".rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
