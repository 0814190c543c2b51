"""Lives of sweeps on one volume: operators, prepares, pods and zombies, interleaved call by call, and what must hold.

The world knows by itself what was committed, what is whole, and who was gone when; from that it judges what stands on
the volume.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sweeprun_protocol.layout import EPOCH_PLACEHOLDER, MANIFEST, RunLayout, staging_name, step_name
from sweeprun_protocol.prepare import PrepareReport, PrepareRequest
from sweeprun_protocol.reasons import AdoptionScope, OnNoValidCheckpoint, Outcome
from sweeprun_protocol.records import Claim, Decision, EndRecord, Owner, StartRecord
from sweeprun_volume import operations
from sweeprun_volume.errors import UnsafeEntryError, VolumeError
from sweeprun_volume.fence import later_claim
from sweeprun_volume.operations import Volume
from sweeprun_volume.prepare import prepare
from sweeprun_volume.records_io import publish_record

from .network_cache import NetworkFileSystem
from .turns import Actor, Turns
from .volume_checkpoints import CONTENT, flip, manifest_of, saved
from .volume_sweep import SLOTS, adopting, clock_without_waiting, make_request

BEGAN = frozenset({Outcome.RESUME, Outcome.RESTART, Outcome.FRESH})


@dataclass
class Attempt:
    """Pods that may write as long as they live, whoever knows of them."""

    run_id: str
    epoch: int
    step: int
    drained: bool = False
    """Whether all of them are confirmed to be gone, where writers of one directory are told apart by nothing else."""


@dataclass
class Operator:
    """What one SweepRun's status says."""

    owner: Owner
    scope: AdoptionScope = AdoptionScope.SWEEP
    request: PrepareRequest | None = None
    next: int = 0
    take: tuple[str, int] | None = None
    report: PrepareReport | None = None
    known: PrepareReport | None = None
    """The newest report that named a run."""
    fresh_number: int = 0


@dataclass
class Commit:
    path: Path
    told: int | None = None
    """Turn at which save() returned."""
    damaged: bool = False


@dataclass
class World:
    root: Path
    seed: int
    below: Any = os
    """What holds the volume: a NetworkFileSystem, whose clients are three nodes."""
    checkpoints: str = "checkpoints"
    """Directory; any but this one is written into by a script with torch.save, over what lies there."""
    turn: int = 0
    operators: list[Operator] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    commits: dict[tuple[str, int, int], Commit] = field(default_factory=dict)
    """(run, step, epoch)."""
    requests: dict[tuple[str, int], PrepareRequest] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    claimed: dict[tuple[str, int], int] = field(default_factory=dict)
    reports: list[tuple[PrepareRequest, PrepareReport]] = field(default_factory=list)
    published: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.turns = Turns(self._linked, self.below)
        self._patch = pytest.MonkeyPatch()
        self._made = 0
        self._times = itertools.count(1_700_000_000)
        self.create(0)

    def __enter__(self) -> World:
        self._patch.setattr(operations, "os", self.turns)
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            if not actor.over:
                actor.die()
        self._patch.undo()

    def _linked(self, path: str) -> None:
        parts = path.split("/")
        if parts[-2] == "claims":
            self.claimed.setdefault((parts[-3], int(parts[-1][:6])), self.turn)

    # -- events ----------------------------------------------------------------------------------------------------

    def create(self, _: int) -> None:
        """A SweepRun of the same name as others before it."""
        self._made += 1
        self.operators.append(Operator(Owner("cluster-a", "sweeps", "digits-lr-0", f"uid-{self._made}")))

    def delete(self, number: int) -> None:
        """With force: its pods may live on."""
        operator = self._alive(number)
        if operator is not None:
            self.gone[operator.owner.uid] = self.turn

    def ask(self, number: int) -> None:
        """The next prepare of a SweepRun, or one more pod of the same."""
        operator = self._alive(number)
        if operator is not None:
            self._ask(operator, number)

    def _ask(self, operator: Operator, number: int) -> None:
        if self._is_foreign and EPOCH_PLACEHOLDER not in self.checkpoints:
            self._drain()
        again = operator.request is not None and operator.report is None and number % 3 == 0
        if not again:
            operator.request = self._request(operator, number)
            operator.next += 1
            operator.report = None
        request = operator.request
        assert request is not None
        self.requests[request.owner.uid, request.prepare] = request
        self._start(f"prepare {request.prepare} of {request.owner.uid}", lambda: self._prepare(operator, request))

    @property
    def _is_foreign(self) -> bool:
        return self.checkpoints != "checkpoints"

    def _drain(self) -> None:
        for attempt in self.attempts:
            attempt.drained = True
        for actor in [actor for actor in self._living() if actor.name.startswith("commit")]:
            actor.die()

    def live(self, number: int) -> None:
        """An attempt as it should be: prepared, then some commits."""
        self.ask(3 * number + 1)
        self.finish()
        for _ in range(number % 4):
            self.commit(0)
            self.finish()

    def overtake(self, number: int) -> None:
        """The Job of a prepare is given up too early, somewhere on its way."""
        self.ask(3 * number + 1)
        self.act(number % 8)
        self.ask(3 * number + 1)

    def commit(self, number: int) -> None:
        attempt = self._attempt(number)
        if attempt is not None and not attempt.drained:
            attempt.step += 10
            step = attempt.step
            commit = self._save if self._is_foreign else self._commit
            self._start(f"commit {step} of {attempt.epoch}", lambda: commit(attempt, step))

    def end(self, number: int) -> None:
        """Every slot ends well, or one is told to stop."""
        attempt = self._attempt(number)
        if attempt is not None:
            good = number % 4 != 0
            self._start(f"end of {attempt.epoch}", lambda: self._end(attempt, good=good))

    def damage(self, number: int) -> None:
        fitting = [item for _, item in sorted(self.commits.items()) if item.told is not None and item.path.exists()]
        if fitting:
            commit = fitting[number % len(fitting)]
            for other in self.commits.values():  # scripts save over what lies there
                other.damaged |= other.path == commit.path
            if self._is_foreign:
                data, written = commit.path.read_bytes(), commit.path.stat().st_mtime_ns
                commit.path.write_bytes(flip(data, len(data) // 2))
                os.utime(commit.path, ns=(written, written))  # a disk that damages a file does not say when
            else:
                (commit.path / "model.pt").write_bytes(b"torn")

    def kill(self, number: int) -> None:
        living = self._living()
        if living:
            living[number % len(living)].die()

    def act(self, number: int) -> None:
        for _ in range(1 + number):
            living = self._living()
            if not living:
                return
            if isinstance(self.below, NetworkFileSystem):
                self.below.now += self.random.choice((0, 1, 20, 70))
            actor = self.random.choice(living)
            for _ in range(self.random.choice((1, 1, 2, 5, 20, 100))):
                if not actor.over:
                    self.turn += 1
                    actor.step()
            if actor.error is not None:
                raise actor.error

    def finish(self, _: int = 0) -> None:
        while self._living():
            self.act(50)

    def _living(self) -> list[Actor]:
        self.actors = [actor for actor in self.actors if not actor.over]
        return self.actors

    def _start(self, name: str, act: Callable[[], None]) -> None:
        self.actors.append(Actor(self.turns, name, act, node=self.random.choice("abc")))

    def _alive(self, number: int) -> Operator | None:
        alive = [item for item in self.operators if item.owner.uid not in self.gone]
        return alive[number % len(alive)] if alive else None

    def _attempt(self, number: int) -> Attempt | None:
        """The newest ones more often."""
        return self.attempts[-1 - min(number % 5, len(self.attempts) - 1) // 2] if self.attempts else None

    # -- what actors do --------------------------------------------------------------------------------------------

    def _request(self, operator: Operator, number: int) -> PrepareRequest:
        known, report = operator.known, operator.report
        if report is not None and report.outcome is Outcome.CANDIDATES:
            proved = [item for item in report.candidates if item.owner is None or item.owner.uid in self.gone]
            operator.take = (proved[0].run_id, proved[0].epoch) if proved else None
            operator.scope = AdoptionScope.SWEEP if proved else AdoptionScope.NONE
        elif report is not None and report.outcome is Outcome.BLOCKED:
            operator.take = None
        taking = {} if operator.take is None else {"take": operator.take[0], "take_epoch": operator.take[1]}
        request = make_request(
            owner=operator.owner,
            prepare=operator.next,
            fresh_number=operator.fresh_number,
            adoption=adopting(operator.scope, **taking),
            on_no_valid_checkpoint=(OnNoValidCheckpoint.NEW_RUN, OnNoValidCheckpoint.RESTART_RUN)[number % 2],
            from_step=number % 50 if number % 5 == 0 and known is not None else None,
            resume=number % 13 != 0,
            checkpoint_directory=self.checkpoints,
        )
        if known is None:
            return request
        return replace(
            request,
            run_id=known.run_id,
            started=True,
            volume_id=known.volume_id,
            known_epoch=known.epoch,
            pinned=known.checkpoint,
        )

    def _prepare(self, operator: Operator, request: PrepareRequest) -> None:
        clock = self.below.clock() if isinstance(self.below, NetworkFileSystem) else clock_without_waiting()
        report = prepare(Volume(str(self.root)), request, clock=clock)
        self.reports.append((request, report))
        if operator.request is not request or operator.owner.uid in self.gone:
            return
        operator.report = report
        if report.outcome in BEGAN or report.outcome is Outcome.COMPLETED:
            operator.known = report
        if report.outcome in BEGAN:
            operator.fresh_number += report.outcome is Outcome.FRESH
            base = report.checkpoint.step if report.checkpoint is not None else 0
            assert report.run_id is not None
            self.attempts.append(Attempt(report.run_id, report.epoch, base))

    def _run_volume(self, attempt: Attempt) -> Volume:
        return Volume(str(self.directory(attempt.run_id)))

    def directory(self, run_id: str) -> Path:
        return self.root / "sweep" / "digits-lr" / "runs" / run_id

    def _commit(self, attempt: Attempt, step: int) -> None:
        """As the library does it."""
        volume = self._run_volume(attempt)
        epoch, key = attempt.epoch, (attempt.run_id, step, attempt.epoch)
        final = f"checkpoints/{step_name(step, epoch)}"
        staging = f"checkpoints/{staging_name(step, epoch, os.urandom(4).hex())}"
        data = CONTENT[:64] + step.to_bytes(8, "big")
        try:
            volume.make_directories("checkpoints")
            volume.make_directory(staging)
            with volume.create_file(f"{staging}/model.pt") as descriptor:
                volume.write(descriptor, memoryview(data), f"{staging}/model.pt")
            if later_claim(volume, RunLayout(""), epoch=epoch) is not None:
                return
            manifest = manifest_of({"model.pt": data}, run_id=attempt.run_id, step=step, epoch=epoch)
            volume.publish(f"{staging}/{MANIFEST}", manifest.encode())
            commit = self.commits.setdefault(key, Commit(self.directory(attempt.run_id) / final))
            if volume.move(staging, final):
                commit.told = self.turn
        except (VolumeError, UnsafeEntryError, FileNotFoundError):
            return  # somebody swept the staging directory away: this attempt is over

    def _save(self, attempt: Attempt, step: int) -> None:
        """As a script does it: not at once, and over what lies there."""
        directory = self.checkpoints.replace(EPOCH_PLACEHOLDER, str(attempt.epoch))
        path = self.directory(attempt.run_id) / directory / f"step-{step}.pt"
        data = saved({"step": step, "epoch": attempt.epoch, "optimizer": 1})
        path.parent.mkdir(parents=True, exist_ok=True)
        for commit in self.commits.values():
            commit.damaged |= commit.path == path
        commit = self.commits[attempt.run_id, step, attempt.epoch] = Commit(path, damaged=True)
        path.write_bytes(data[: len(data) // 2])
        self.turns.wait()
        path.write_bytes(data)
        os.utime(path, (next(self._times),) * 2)  # file systems here tell no times apart that are 4 ms from each other
        commit.damaged, commit.told = False, self.turn

    def _end(self, attempt: Attempt, *, good: bool) -> None:
        volume, layout, epoch = self._run_volume(attempt), RunLayout(""), attempt.epoch
        for slot in SLOTS:
            start = StartRecord(epoch, slot, f"pod-{slot}", slot, "node", 1.0)
            publish_record(volume, layout.start(epoch, slot), start)
            stopped = not good and slot == SLOTS[-1]
            end = EndRecord(epoch, slot, f"pod-{slot}", 0, stopped, False, attempt.step or None, None, 1.0)
            publish_record(volume, layout.end(epoch, slot), end)

    # -- what must hold --------------------------------------------------------------------------------------------

    def check(self) -> None:
        found = {
            str(path): path.read_bytes()
            for pattern in ("claims/0*.json", "epochs/*/*.json", "*.json", "checkpoints/step-*/manifest.json")
            for path in self.root.glob(f"sweep/digits-lr/runs/*/{pattern}")
        }
        for path, data in self.published.items():
            if "/checkpoints/" not in path:
                assert found.get(path) == data, f"{path} was published and is something else now"
        self.published = found
        runs = self.root / "sweep" / "digits-lr" / "runs"
        for run in sorted(runs.iterdir()) if runs.exists() else []:
            self._check_run(run)
        for request, report in self.reports:
            self._check_report(request, report)

    def _check_run(self, run: Path) -> None:
        claims = [Claim.from_value(json.loads(path.read_bytes()), "") for path in sorted(run.glob("claims/0*.json"))]
        assert [claim.epoch for claim in claims] == list(range(1, len(claims) + 1))
        for before, claim in itertools.pairwise(claims):
            if before.owner.uid == claim.owner.uid:
                assert claim.prepare > before.prepare, f"{run.name}: {claim} after {before}"
            else:
                gone = self.gone.get(before.owner.uid)
                assert gone is not None, f"{run.name}: {claim} stole"
                assert gone <= self.claimed[run.name, claim.epoch], f"{run.name}: {claim} stole"
        decided: Decision | None = None
        for claim in claims:
            path = run / "epochs" / str(claim.epoch) / "decision.json"
            if not path.exists():
                continue
            decision = Decision.from_value(json.loads(path.read_bytes()), "")
            if decision.outcome is Outcome.SUPERSEDED:
                continue
            self._check_decision(run.name, claim, decision, decided)
            decided = decision
        if decided is not None:
            for step, epoch in self._path(run.name, decided, by=self.turn):
                commit = self.commits[run.name, step, epoch]
                assert commit.path.exists(), f"{commit.path} was moved, and epoch {decided.epoch} stands on it"

    def _path(self, run: str, decided: Decision | None, *, by: int) -> set[tuple[int, int]]:
        """(step, epoch) of what is whole and may be read after an epoch."""
        if decided is None:
            return set()
        base = decided.base
        inherited = {(ref.step, ref.epoch) for ref in decided.eligible if base is not None and ref.step <= base.step}
        fresh = {
            (step, epoch)
            for (name, step, epoch), commit in self.commits.items()
            if name == run and epoch == decided.epoch and commit.told is not None and commit.told < by
        }
        return {key for key in inherited | fresh if not self.commits[run, *key].damaged}

    def _check_decision(self, run: str, claim: Claim, decision: Decision, decided: Decision | None) -> None:
        where = f"run {run}, {decision}\nafter {decided}"
        request = self.requests[claim.owner.uid, decision.prepare]
        base = decision.base
        if base is not None:
            assert decided is not None, where
            inherited = {(ref.step, ref.epoch) for ref in decided.eligible if decided.base is not None}
            allowed = {key for key in inherited if decided.base is not None and key[0] <= decided.base.step}
            assert base.epoch == decided.epoch or (base.step, base.epoch) in allowed, f"abandoned: {where}"
            assert (run, base.step, base.epoch) in self.commits, f"never committed: {where}"
        if request.resume and request.from_step is None:
            due = max(self._path(run, decided, by=self.claimed[run, claim.epoch]), default=None)
            chosen = (base.step, base.epoch) if base is not None else (-1, -1)
            assert due is None or chosen >= due, f"{due} is whole and was lost: {where}"

    def _check_report(self, request: PrepareRequest, report: PrepareReport) -> None:
        if report.outcome not in BEGAN:
            return
        path = self.directory(str(report.run_id)) / "epochs" / str(report.epoch) / "decision.json"
        decision = Decision.from_value(json.loads(path.read_bytes()), str(path))
        assert (decision.outcome, decision.base) == (report.outcome, report.checkpoint), (request, report)

    def settle(self) -> None:
        """All is quiet: whoever is still there gets an answer, and what is complete stays so."""
        for operator in [item for item in self.operators if item.owner.uid not in self.gone]:
            for _ in range(8):
                self._ask(operator, 1)
                self.finish()
                self.check()
                report = operator.report
                assert report is not None
                if report.outcome in (*BEGAN, Outcome.COMPLETED):
                    break
            assert report is not None
            assert report.outcome in (*BEGAN, Outcome.COMPLETED), report.message
            result = self.directory(str(report.run_id)) / "result.json"
            assert result.exists() == (report.outcome is Outcome.COMPLETED), report
            marker = self.directory(str(report.run_id)) / ".incomplete"
            assert marker.exists() != result.exists(), report
