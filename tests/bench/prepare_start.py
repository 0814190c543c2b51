"""From the start of prepare's process to its verdict, its memory, and what importing it costs."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from support.volume_sweep import Sweep
from sweeprun_protocol.layout import MANIFEST, RunLayout
from sweeprun_protocol.prepare import REQUEST_ENV, PrepareReport
from sweeprun_volume.formats.own import OwnFormat

from .measuring import Bench, Row, took, write_random
from .own_manifest import full, write_manifest

CHECKPOINTS = 50
MODULE = ["-m", "sweeprun_volume"]
_LAUNCHER = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
took = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"wall": took, "cpu": used.ru_utime + used.ru_stime, "kib": used.ru_maxrss}))
"""


def measure(bench: Bench) -> Iterator[Row]:
    compiled = bench.place / "compiled"
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled)}  # as images have it: nothing is compiled at a start
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    _started(environ, [*MODULE, "--help"])
    ours, bare = ([*MODULE, "--help"], ["-c", "pass"])
    pairs = [(_started(environ, ours), _started(environ, bare)) for _ in range(3 * bench.rounds)]
    wall = min(one["wall"] for one, _ in pairs) - min(other["wall"] for _, other in pairs)
    cpu = min(one["cpu"] for one, _ in pairs) - min(other["cpu"] for _, other in pairs)
    yield Row.at_most("start of python -m sweeprun_volume", wall, 0.15, "s", f"best, over bare Python; CPU {cpu:.3f} s")
    size = bench.mib("PREPARE", 256)
    sweep = _run_with_checkpoints(bench.place / "volume", newest=size)
    found = [_prepared(sweep, environ, bench.place / f"report-{number}") for number in range(bench.rounds)]
    beyond = statistics.median(entry["wall"] - reading for entry, reading in found)
    name = f"prepare, {CHECKPOINTS} checkpoints, beyond reading the newest"
    yield Row.at_most(name, beyond, 0.3, "s", f"the newest has {size >> 20} MiB")
    memory = max(entry["kib"] for entry, _ in found) / 1024
    yield Row.at_most(f"memory of prepare, newest of {size >> 20} MiB", memory, 60, "MiB", "resident, at its peak")
    large = bench.mib("MEMORY", 1024)
    shutil.rmtree(sweep.root)
    sweep = _run_with_checkpoints(bench.place / "volume", newest=large)
    entry, _ = _prepared(sweep, environ, bench.place / "report-large")
    name = f"memory of prepare, newest of {large >> 20} MiB"
    yield Row.at_most(name, entry["kib"] / 1024, 60, "MiB", "resident, at its peak")


def _started(environ: dict[str, str], arguments: list[str]) -> dict[str, float]:
    """Through a small process: a child's peak is never told as less than that of whoever started it."""
    command = [sys.executable, "-c", _LAUNCHER, sys.executable, *arguments]
    done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _run_with_checkpoints(root: Path, *, newest: int) -> Sweep:
    """An attempt that was interrupted; the older checkpoints are small, for nobody reads them."""
    root.mkdir()
    sweep = Sweep(root)
    sweep.prepare()
    for step in range(1, CHECKPOINTS):
        sweep.save(step)
    place = sweep.save(CHECKPOINTS)
    _grow(sweep, place, newest)
    return sweep


def _grow(sweep: Sweep, place: Path, size: int) -> None:
    """The checkpoint again, with one large file more."""
    (place / MANIFEST).unlink()
    write_random(place / "large.pt", size)
    write_manifest(full(sweep.root, run_id=sweep.run_id), place, epoch=sweep.epoch, step=CHECKPOINTS)


def _prepared(sweep: Sweep, environ: dict[str, str], report: Path) -> tuple[dict[str, float], float]:
    """What one prepare took that reads the newest checkpoint, and the seconds that its reading alone takes here."""
    for verdict in Path(sweep.layout().verdicts).glob("*"):  # one that stands would spare it the reading
        verdict.unlink()
    request = sweep.next_request().encode()
    arguments = [*MODULE, "prepare", "--root", str(sweep.root), "--report", str(report)]
    entry = _started({**environ, REQUEST_ENV: request}, arguments)
    sweep.last = PrepareReport.decode(report.read_bytes())
    chosen = sweep.last.checkpoint
    if chosen is None or chosen.step != CHECKPOINTS or not sweep.last.checked_bytes:
        raise RuntimeError(f"the newest was not read: {sweep.last.message}")
    context = replace(
        full(sweep.root, run_id=sweep.run_id), layout=RunLayout(str(sweep.directory().relative_to(sweep.root)))
    )
    reading = took(lambda: OwnFormat().check(context, chosen.path, step=chosen.step, epoch=chosen.epoch)).wall
    return entry, reading
