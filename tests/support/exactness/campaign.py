"""One run: killed as planned, prepared anew each time, and compared with the undisturbed run of its kind."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support.ranks import Ranks, context
from support.run_directory import RunDirectory
from sweeprun_protocol.reasons import Outcome

from .kills import Kill

SCRIPT = Path(__file__).with_name("script.py")
WORLD = 2
STEPS = 24
MOST_KILLS = 5
SECONDS = 180.0


@dataclass(frozen=True)
class Kind:
    """Of a training: what its final state depends on, and whether saves are made in the background."""

    mode: str
    loader: str
    workers: int
    background: bool

    @property
    def reference(self) -> tuple[str, str, int]:
        return self.mode, self.loader, self.workers

    def environ(self, *, every: int) -> dict[str, str]:
        return {
            "EXACT_MODE": self.mode,
            "EXACT_LOADER": self.loader,
            "EXACT_WORKERS": str(self.workers),
            "EXACT_BACKGROUND": str(int(self.background)),
            "EXACT_STEPS": str(STEPS),
            "EXACT_EVERY": str(every),
        }


MODES = ("ddp", "ddp with buffers of each rank", "fsdp")
# What StatefulDataLoader's workers draw is not in its state: docs/library.md
KINDS = [
    Kind(mode, loader, workers, background)
    for mode, loader, workers, background in itertools.product(
        MODES, ("plain", "generator", "distributed", "stateful"), (0, 2), (False, True)
    )
    if not (loader == "stateful" and workers)
]


@dataclass
class Told:
    """What became of one run."""

    seed: int
    kind: Kind
    kills: list[Kill] = field(default_factory=list)
    """That were carried out."""
    resumed: list[int] = field(default_factory=list)
    """Steps from which attempts went on."""
    divergence: str = ""
    """Empty: the final state is that of the undisturbed run."""

    def line(self) -> dict[str, Any]:
        return asdict(self)


class Campaign:
    def __init__(self, place: Path) -> None:
        self._place = place
        self._forking = context()
        self._references: dict[tuple[str, str, int], list[str]] = {}

    def run(self, seed: int, kind: Kind | None = None) -> Told:
        """Everything is drawn from the seed: the kind, where none is given, the kills and the interval of saves."""
        draw = random.Random(seed)
        kind = kind or draw.choice(KINDS)
        planned = [Kill.drawn(draw, steps=STEPS, world=WORLD) for _ in range(draw.randint(1, MOST_KILLS))]
        return self.follow(seed, kind, sorted(planned, key=lambda kill: kill.step), every=draw.randint(1, 6))

    def follow(self, seed: int, kind: Kind, planned: list[Kill], *, every: int, **environ: str) -> Told:
        """One kill for each attempt, in their order; `environ` for the script."""
        told = Told(seed, kind)
        expected = self._reference(kind)
        found = self._ended(told, planned, every=every, environ=environ)
        if not told.divergence and found != expected:
            told.divergence = f"final digests {found}, undisturbed {expected}"
        return told

    def _reference(self, kind: Kind) -> list[str]:
        if kind.reference not in self._references:
            plain = Kind(*kind.reference, background=False)
            told = Told(0, plain)
            found = self._ended(told, [], every=STEPS, environ={})
            if told.divergence:
                raise RuntimeError(f"the undisturbed run of {kind} does not end well: {told.divergence}")
            self._references[kind.reference] = found
        return self._references[kind.reference]

    def _ended(self, told: Told, planned: list[Kill], *, every: int, environ: Mapping[str, str]) -> list[str]:
        """Digests of all ranks at the end."""
        place = Path(tempfile.mkdtemp(dir=self._place))
        run = RunDirectory(place / "volume", slots=tuple(f"worker-{rank}" for rank in range(WORLD)))
        attempts = 0
        while run.report.outcome is not Outcome.COMPLETED:
            if attempts > len(planned):
                told.divergence = f"not complete after {attempts} attempts: {self._tails(place)}"
                return []
            base = run.report.checkpoint
            if attempts and base is not None:
                told.resumed.append(base.step)
            kill = planned[attempts] if attempts < len(planned) else None
            waits = {"EXACT_WAITS": str(int(kill is not None and kill.step > STEPS))}
            known = run.environment(grace_seconds=60).encode()
            given = {**known, **told.kind.environ(every=every), **waits, **environ}
            self._attempt(told, run, place, attempts, kill, given)
            attempts += 1
            run.prepare()
        digests = [(place / f"digest-{rank}").read_text() for rank in range(WORLD)]
        shutil.rmtree(place)
        return digests

    def _attempt(
        self, told: Told, run: RunDirectory, place: Path, number: int, kill: Kill | None, given: Mapping[str, str]
    ) -> None:
        for rank in range(WORLD):
            (place / f"seen-{rank}").unlink(missing_ok=True)
        environ = {**given, "EXACT_PLACE": str(place), "PATH": os.environ["PATH"]}
        ranks = Ranks(self._forking, SCRIPT, [environ] * WORLD, place=place, name=str(number))
        try:
            if kill is not None and kill.strike(ranks, place, run.checkpoints, world=WORLD):
                told.kills.append(kill)
            codes = ranks.wait(SECONDS)
            if None in codes:
                told.divergence = f"attempt {number} hangs: {self._tails(place)}"
        finally:
            ranks.end()

    def _tails(self, place: Path) -> str:
        logs = sorted(place.glob("log-*"))[-WORLD:]
        return f"{place}: " + " | ".join(log.read_text(errors="replace")[-1500:] for log in logs)
