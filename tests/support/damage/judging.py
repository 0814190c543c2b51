"""What a full look says of a damaged checkpoint: by itself, and with what was recorded when it was first read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from support.damage.kinds import KINDS, Kind, Sample
from support.damage.samples import EPOCH, RUN_ID, STEP, WRITERS
from support.volume_checkpoints import context_at
from sweeprun_protocol.reasons import RefusalReason
from sweeprun_volume.clock import Clock, Deadline
from sweeprun_volume.formats import Checked, Refused, format_of

SECONDS = 60.0


@dataclass(frozen=True)
class Judged:
    sample: str
    kind: str
    seed: int
    alone: RefusalReason | None
    """None: it passed."""
    recorded: RefusalReason | None


class Bench:
    """One undamaged checkpoint, looked at once; copies of it are damaged."""

    def __init__(self, sample: Sample, directory: Path) -> None:
        self._sample = sample
        self._writer = WRITERS[sample.name]
        directory.mkdir(parents=True)
        self._directory = directory
        self._place = directory / self._writer.name
        self._context = context_at(directory, run_id=RUN_ID, seconds=SECONDS, resumable_only=False)
        self._restore()
        self._first = self.look(recorded=False)

    def look(self, *, recorded: bool) -> Checked:
        """Raises Refused."""
        known = self._first.contents if recorded else None
        context = replace(self._context, known=known, deadline=Deadline.after(SECONDS, Clock()))
        checked = format_of(self._writer.format).check(context, self._writer.name, step=STEP, epoch=EPOCH)
        if recorded and checked.digest != self._first.digest:
            raise Refused(RefusalReason.DIGEST_MISMATCH, "its digest is another one than was recorded off the volume")
        return checked

    def damage(self, kind: Kind, seed: int) -> Judged | None:
        """None where the kind does not fit, or happened to change nothing."""
        self._restore()
        before = _picture(self._place)
        if not kind(Random(f"{self._sample.name} {kind.__name__} {seed}"), self._place, self._sample):
            return None
        if _picture(self._place) == before:
            return None
        return Judged(self._sample.name, kind.__name__, seed, self._reason(recorded=False), self._reason(recorded=True))

    def _reason(self, *, recorded: bool) -> RefusalReason | None:
        try:
            self.look(recorded=recorded)
        except Refused as refused:
            return refused.reason
        return None

    def _restore(self) -> None:
        shutil.rmtree(self._directory)
        self._directory.mkdir()
        copy = shutil.copytree if self._sample.here.is_dir() else shutil.copyfile
        copy(self._sample.here, self._place)


def _picture(place: Path) -> dict[str, bytes | str]:
    """Everything that a damage may change."""
    paths: Iterable[Path] = [place, *sorted(place.rglob("*"))] if place.is_dir() else [place]
    return {str(path.relative_to(place)): _content(path) for path in paths}


def _content(path: Path) -> bytes | str:
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    if path.is_file():
        return path.read_bytes()
    return "directory" if path.is_dir() else "pipe"


def judge_all(samples: Iterable[Sample], seeds: Iterable[int], directory: Path) -> list[Judged]:
    seeds = list(seeds)
    found = []
    for sample in samples:
        bench = Bench(sample, directory / sample.name)
        found += [judged for kind in KINDS for seed in seeds if (judged := bench.damage(kind, seed)) is not None]
    return found


def false_alarms(samples: Iterable[Sample], rounds: int, directory: Path) -> dict[str, int]:
    """How often an undamaged copy was refused."""
    counts = {}
    for sample in samples:
        bench = Bench(sample, directory / f"whole-{sample.name}")
        counts[sample.name] = sum(_refused(bench, recorded) for _ in range(rounds) for recorded in (False, True))
    return counts


def _refused(bench: Bench, recorded: bool) -> bool:
    try:
        bench.look(recorded=recorded)
    except Refused:
        return True
    return False
