"""`python -m bench [SUBJECT...]`, from the folder tests."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from .measuring import Bench, Row

NONE = frozenset({"__main__", "measuring", "scale"})
WIDTHS = (58, 12, 14, 7)


def main(chosen: list[str]) -> int:
    subjects = sorted(item.name for item in pkgutil.iter_modules([str(Path(__file__).parent)]) if item.name not in NONE)
    unknown = set(chosen) - set(subjects)
    if unknown:
        print(f"no subject {', '.join(sorted(unknown))}; there are {', '.join(subjects)}", file=sys.stderr)
        return 2
    load, processors = os.getloadavg()[0], len(os.sched_getaffinity(0))
    print(f"{processors} processors, load {load:.1f}" + (": busy, expect too little" if load > processors / 2 else ""))
    rows = [row for subject in chosen or subjects for row in _apart(subject)]
    missed = [row.name for row in rows if row.met is False]
    print(f"{len(missed)} of {len(rows)} missed" if missed else f"all {len(rows)} met or skipped")
    return 0


def _apart(subject: str) -> list[Row]:
    """Forked from this process, which has imported next to nothing: packages and threads of one subject are its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as executor:
        return executor.submit(_rows, subject).result()


def _rows(subject: str) -> list[Row]:
    return list(_measured(subject))


def _measured(subject: str) -> Iterator[Row]:
    print(f"\n{subject}", flush=True)
    module = importlib.import_module(f"bench.{subject}")
    with tempfile.TemporaryDirectory(prefix="sweeprun-bench-", dir=os.environ.get("SWEEPRUN_BENCH_DIR")) as place:
        for row in module.measure(Bench(Path(place), int(os.environ.get("SWEEPRUN_BENCH_ROUNDS", "7")))):
            *cells, detail = row.cells()
            table = "".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
            print(f"  {table}{detail}".rstrip(), flush=True)
            yield row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
