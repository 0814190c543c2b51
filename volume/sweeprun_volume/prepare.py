"""Prepare: judge what was, decide what comes. Find the run, claim its next epoch, judge the end of the epoch before,
judge checkpoints, publish the decision once, and only then move anything."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Optional

from sweeprun_protocol.codec import RecordError, dump
from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.prepare import PrepareReport, PrepareRequest
from sweeprun_protocol.reasons import BlockedReason, Format, Level, Outcome, StartReason
from sweeprun_protocol.records import CheckpointRef, Claim, Decision, Marker, Refusal, Result, RunRecord, SupersededBy

from . import completion, quarantine, retention, trash
from .choosing import Situation, choose, known_to_exist, needs_walk
from .claims import claim_epoch, highest_epoch, read_claim, still_head, superseded
from .clock import Clock, Deadline
from .completion import NO_EVIDENCE, Evidence
from .configuration import settle
from .copying import with_base_out_of_reach
from .decisions import (
    Seen,
    close_epochs,
    earlier_attempts,
    gives_way,
    newest_decision,
    publish_decision,
    read_decision,
    read_seen,
)
from .discovery import Inventory, candidates_of, look_around, take_inventory
from .errors import OutOfTimeError, Stopped, TooManyEntriesError, UnsafeEntryError, VolumeError, blocked
from .formats import Context
from .inits import publish_init
from .lineage import Candidate, FileFacts
from .operations import Volume
from .probe import identify, probe_write
from .records_io import publish_record, read_record
from .runs import Run, find_run, markers_of, new_run
from .standings import layout_of, parent_of, read_run
from .validate import Walk, walk
from .verdicts import Judge

SETTLE_SECONDS = 90.0
"""How long a checkpoint that must exist is asked for by name: attribute caches of NFS last up to a minute."""

_LEAVES_CHECKPOINTS = frozenset({StartReason.ALL_REFUSED, StartReason.RESUME_NEVER})


def prepare(
    volume: Volume, request: PrepareRequest, *, clock: Optional[Clock] = None, settle_seconds: float = SETTLE_SECONDS
) -> PrepareReport:
    """Always answers with a report; what went wrong on the volume is Blocked, never a verdict on data."""
    return _Preparation(volume, request, clock or Clock(), settle_seconds).run()


def finish_init(
    volume: Volume,
    request: PrepareRequest,
    *,
    staging: str,
    clock: Optional[Clock] = None,
    settle_seconds: float = SETTLE_SECONDS,
) -> PrepareReport:
    """The last container of a sweep_init pod: publish what it left, then go on as the prepare of `request`."""
    return _Preparation(volume, request, clock or Clock(), settle_seconds, staging).run()


@dataclass()
class _Preparation:
    volume: Volume
    request: PrepareRequest
    clock: Clock
    settle_seconds: float
    staging: Optional[str] = None
    """Directory of the sweep_init pod that this prepare finishes."""
    volume_time: float = field(init=False, default=0.0)
    """When it began, in seconds since 1970 by the volume's clock."""
    report: PrepareReport = field(init=False)
    """What is known so far: an answer that ends early still says as much as possible."""

    def __post_init__(self) -> None:
        self.report = PrepareReport(prepare=self.request.prepare, outcome=Outcome.BLOCKED, message="")

    def run(self) -> PrepareReport:
        began = self.clock.monotonic()
        try:
            self._run()
        except Stopped as stopped:
            self._stopped(stopped)
        except VolumeError as error:
            self._block(error.reason, error.message)
        except OSError as error:
            self._block(BlockedReason.IO_ERROR, str(error))
        except (RecordError, UnsafeEntryError, TooManyEntriesError) as error:
            self._block(BlockedReason.RECORD_INVALID, str(error))
        except OutOfTimeError:
            limit = self.request.timeout_seconds
            self._block(
                BlockedReason.TIME_OUT,
                f"validation took longer than {limit} s: raise checkpoint.validation.timeoutSeconds, or use level Fast",
            )
        return replace(self.report, seconds=self.clock.monotonic() - began)

    def _stopped(self, stopped: Stopped) -> None:
        refused = stopped.refused or self.report.refused
        self.report = replace(
            self.report,
            outcome=stopped.outcome,
            message=stopped.message,
            blocked=stopped.blocked,
            reason=stopped.reason or self.report.reason,
            run_id=stopped.run_id or self.report.run_id,
            candidates=stopped.candidates,
            refused=refused,
            refused_count=len(refused),
            head_prepare=stopped.head_prepare,
        )

    def _block(self, reason: BlockedReason, message: str) -> None:
        self.report = replace(self.report, outcome=Outcome.BLOCKED, blocked=reason, message=message)

    # -- the steps -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if not self.request.slots:
            raise blocked(BlockedReason.REQUEST_INVALID, "the request names no slot")
        volume_id = identify(self.volume, known=self.request.volume_id)
        self.report = replace(self.report, volume_id=volume_id)
        self.volume_time = probe_write(self.volume)
        if self.staging is not None:
            publish_init(self.volume, self.request, staging=self.staging)
        self._look_anew()
        run: Optional[Run] = find_run(self.volume, self.request, volume_time=self.volume_time)
        replaced: set[str] = set()
        while run is not None:
            replaced.add(run.standing.run_id)
            run = self._run_one(run, volume_id)
            if run is not None and run.standing.run_id in replaced:
                raise RecordError(run.standing.layout.superseded_by, "runs supersede each other in a circle")

    def _look_anew(self) -> None:
        """What was claimed on another node a moment ago has to show."""
        self.volume.look_anew(parent_of(self.request))
        if self.request.run_id is not None:
            self.volume.look_anew(layout_of(self.request, self.request.run_id).claims)

    def _run_one(self, run: Run, volume_id: str) -> Optional[Run]:
        """Bring one run to its answer. Returns the run that takes its place, where it has to give way."""
        standing = run.standing
        if self.request.run_id not in (None, standing.run_id):  # led on from a run that gave way
            self.request = replace(self.request, pinned=None)
        self._check_head(run)
        self.report = replace(self.report, run_id=standing.run_id, previous_run_id=run.previous_run_id)
        self._recall(run)
        if standing.result is not None:
            self._tell_again(run, standing.result)
            return None
        claim = claim_epoch(
            self.volume,
            standing.layout,
            run_id=standing.run_id,
            owner=self.request.owner,
            prepare=self.request.prepare,
            head=standing.head,
            take=run.lost is BlockedReason.ADOPTION_LOST,
            lost=run.lost,
            now=self.clock.now,
        )
        run = replace(run, adopted=run.adopted or self._was_adopted(run))
        record = settle(self.volume, self.request, run, volume_id=volume_id)
        self._mark(run, claim)
        self._describe(run, record, claim)
        if self._was_completed(run, claim):
            return None
        directory = self.request.checkpoint_directory
        decided = close_epochs(self.volume, standing.layout, claim, directory=directory)
        if decided is not None and gives_way(decided):
            return self._give_way(run, claim, decided)
        return self._judge(run, record, claim, decided)

    def _recall(self, run: Run) -> None:
        """The operator knows of no run, and this one is its own: its status was lost, or an answer."""
        head, request = run.standing.head, self.request
        if request.started or head is None or head.owner.uid != request.owner.uid:
            return
        earlier = earlier_attempts(
            self.volume, run.standing.layout, uid=request.owner.uid, prepare=request.prepare, head=head.epoch
        )
        self.report = replace(self.report, earlier=earlier if earlier.attempts else None)

    def _check_head(self, run: Run) -> None:
        head, request = run.standing.head, self.request
        epoch = head.epoch if head is not None else 0
        if run.standing.run_id == request.run_id and epoch < request.known_epoch:
            raise blocked(
                BlockedReason.VOLUME_CHANGED,
                f"run {request.run_id} is at epoch {epoch}, epoch {request.known_epoch} was claimed before: "
                "this is an older copy of the volume",
            )
        if head is not None and head.owner.uid == request.owner.uid and head.prepare > request.prepare:
            raise superseded(head, request.prepare)

    def _was_adopted(self, run: Run) -> bool:
        layout = run.standing.layout
        first = read_claim(self.volume, layout, 1)
        if first is not None and first.owner.uid != self.request.owner.uid:
            return True
        return run.standing.foreign_marker and read_run(self.volume, layout) is None

    def _mark(self, run: Run, claim: Claim) -> None:
        marker = Marker(run.standing.run_id, self.request.owner, claim.epoch, self.clock.now())
        self.volume.replace_atomically(run.standing.layout.marker, dump(marker.to_dict()))

    def _describe(self, run: Run, record: RunRecord, claim: Claim) -> None:
        self.report = replace(
            self.report,
            epoch=claim.epoch,
            adopted=run.adopted,
            config_digest=record.config_digest,
            config_file=record.config_file,
            wandb_run_id=self._wandb_run_id(run, record, None, at_most=claim.epoch),
            previous_run_id=record.previous_run_id,
        )

    def _wandb_run_id(self, run: Run, record: RunRecord, decision: Optional[Decision], *, at_most: int) -> str:
        """A restart that left checkpoints behind has another curve, and after a forced deletion the old process may
        still log: such an attempt and those after it have a W&B run of their own, linked by name."""
        first = record.wandb_run_id or record.run_id
        restart = quarantine.newest_restart(self.volume, run.standing.layout, at_most=at_most)
        forced = decision.forced_epoch if decision is not None else None
        newest = max((epoch for epoch in (restart, forced) if epoch is not None), default=None)
        return first if newest is None else f"{first[:54]}-e{newest}"

    def _judge(self, run: Run, record: RunRecord, claim: Claim, decided: Optional[Decision]) -> Optional[Run]:
        layout = run.standing.layout
        completing = self._completing(run, decided)
        if decided is not None:
            self._move(run, claim, decided)
        decision = self._found_decision(layout, claim)
        if decision is None and completing is None:
            if decided is not None and decided.base is not None:
                trash.put_back(self.volume, layout, claim, decided.base.path)
            chosen, seen = self._decide(run, claim, decided)
            # that may take minutes: what other nodes wrote at their end shows late on network file systems
            completing = self._completing(run, decided)
            if completing is None:
                still_head(self.volume, layout, claim)
                decision = publish_decision(self.volume, layout, claim, chosen, seen)
        if decision is None:
            assert decided is not None, "what completes is an attempt, which a decision let start"
            assert completing is not None, "else there is a decision"
            self._finish(run, claim, decided, completing)
            return None
        if gives_way(decision):
            return self._give_way(run, claim, decision)
        self._move(run, claim, decision)
        note = retention.tidy(self.volume, layout, self.request, claim, decision, clock=self.clock)
        self._answer(run, record, decision, note)
        return None

    def _found_decision(self, layout: RunLayout, claim: Claim) -> Optional[Decision]:
        """Of a prepare of this epoch that was here before."""
        decision = read_decision(self.volume, layout, claim.epoch)
        if decision is not None:
            self.volume.sync_name(layout.decision(claim.epoch))
        return decision

    def _completing(self, run: Run, decided: Optional[Decision]) -> Optional[Evidence]:
        """How the attempt ended, where that completes the run."""
        if decided is None:
            return None
        self.volume.look_anew(run.standing.layout.epoch(decided.epoch))
        evidence = completion.gather(self.volume, run.standing.layout, decided, ended_pods=self.request.ended_pods)
        self._tell_of_attempt(evidence)
        return evidence if completion.is_complete(decided, evidence) else None

    def _tell_of_attempt(self, evidence: Evidence) -> None:
        self.report = replace(
            self.report,
            ends=tuple(evidence.ends.values()),
            last_step=evidence.last_step,
            first_step_seconds=evidence.first_step_seconds,
        )

    # -- completion ------------------------------------------------------------------------------------------------

    def _finish(self, run: Run, claim: Claim, decided: Decision, evidence: Evidence) -> None:
        still_head(self.volume, run.standing.layout, claim)
        result = completion.publish_result(
            self.volume,
            run.standing.layout,
            run_id=run.standing.run_id,
            owner=self.request.owner,
            decision=decided,
            evidence=evidence,
            saved_step=self._saved_step(run, claim, decided) if evidence.last_step is None else None,
            now=self.clock.now,
        )
        self._complete(run, result, decided, epoch=claim.epoch)

    def _saved_step(self, run: Run, claim: Claim, decided: Decision) -> Optional[int]:
        """Where no end record tells how far it came."""
        candidates = self._candidates(run, self._inventory(run, claim, decided), decided)
        return max((candidate.step for candidate in candidates), default=None)

    def _was_completed(self, run: Run, claim: Claim) -> bool:
        """Since we looked, or a look at a network file system showed what was: our marker must not stay."""
        result = read_record(self.volume, run.standing.layout.result, Result.from_value)
        if result is None:
            return False
        self._tell_again(run, result)
        still_head(self.volume, run.standing.layout, claim)
        return True

    def _tell_again(self, run: Run, result: Result) -> None:
        """Whoever asks after the end gets the same answer."""
        self.volume.sync_name(run.standing.layout.result)
        head = run.standing.head
        decided = read_decision(self.volume, run.standing.layout, result.epoch)
        self._tell_of_attempt(completion.gather(self.volume, run.standing.layout, decided) if decided else NO_EVIDENCE)
        self.report = replace(self.report, adopted=run.adopted or self._was_adopted(run))
        self._complete(run, result, decided, epoch=head.epoch if head is not None else 0)

    def _complete(self, run: Run, result: Result, decided: Optional[Decision], *, epoch: int) -> None:
        """The record is durable: the markers may go."""
        for path in markers_of(run.standing):
            self.volume.remove_file(path)
        note = retention.empty_trash(self.volume, run.standing.layout, self.request, decided, clock=self.clock)
        record = read_run(self.volume, run.standing.layout)
        if record is not None:
            self.report = replace(
                self.report,
                config_digest=record.config_digest,
                config_file=record.config_file,
                wandb_run_id=self._wandb_run_id(run, record, decided, at_most=epoch),
                previous_run_id=record.previous_run_id,
            )
        self.report = replace(
            self.report,
            outcome=Outcome.COMPLETED,
            message=_with_note(f"run {result.run_id} is complete (attempt of epoch {result.epoch})", note),
            epoch=epoch,
            step=result.step,
            metrics=result.metrics or None,
        )

    # -- decision --------------------------------------------------------------------------------------------------

    def _decide(self, run: Run, claim: Claim, decided: Optional[Decision]) -> tuple[Decision, Seen]:
        inventory = self._inventory(run, claim, decided)
        _require_decisions(inventory, claim, decided)
        candidates = self._candidates(run, inventory, decided)
        pinned = known_to_exist(self.request, decided)
        if pinned is not None and self.request.from_step is None and all(c.step < pinned.step for c in candidates):
            self._wait_for(run, pinned)
            inventory = self._inventory(run, claim, decided)
            candidates = self._candidates(run, inventory, decided)
        situation = Situation(
            request=self.request,
            epoch=claim.epoch,
            decided=decided,
            adopted=run.adopted,
            replaces=self.report.previous_run_id,
            candidates=len(candidates),
        )
        walked = self._walk(run, claim, candidates) if needs_walk(situation) else None
        decision = choose(situation, walked, pinned_present=pinned is None or self._exists(run, pinned))
        if walked is not None and walked.remarks:
            decision = replace(decision, message=f"{decision.message}; {_remarks(walked)}"[:1000])
        forced = claim.epoch if self.request.drain_forced else decided.forced_epoch if decided is not None else None
        decision = replace(decision, forced_epoch=forced)
        copied: Mapping[str, FileFacts] = {}
        if self.request.drain_forced:
            deadline = Deadline.after(self.request.timeout_seconds, self.clock)
            decision, copied = with_base_out_of_reach(self._context(run, deadline), claim, decision)
        return decision, Seen(claim.epoch, {**inventory.foreign(), **copied})

    def _context(self, run: Run, deadline: Deadline) -> Context:
        resumable_only = self.request.format is Format.AUTO
        standing = run.standing
        return Context(
            self.volume, standing.layout, standing.run_id, Level.FULL, deadline, resumable_only=resumable_only
        )

    def _inventory(self, run: Run, claim: Claim, decided: Optional[Decision]) -> Inventory:
        return look_around(
            self.volume,
            run.standing.layout,
            self.request,
            decided=decided,
            epoch=claim.epoch,
            last_step=self.report.last_step,
        )

    def _wait_for(self, run: Run, pinned: CheckpointRef) -> None:
        """By name: nothing that is at least as new shows, and listings of network file systems lag."""
        self.clock.wait_for(lambda: self._exists(run, pinned), seconds=self.settle_seconds)

    def _exists(self, run: Run, ref: CheckpointRef) -> bool:
        return self.volume.exists(posixpath.join(run.standing.layout.directory, ref.path))

    def _candidates(self, run: Run, inventory: Inventory, decided: Optional[Decision]) -> list[Candidate]:
        return candidates_of(self.volume, run.standing.layout, self.request, inventory, decided=decided)

    def _walk(self, run: Run, claim: Claim, candidates: list[Candidate]) -> Walk:
        request = self.request
        walked = walk(
            self.volume,
            run.standing.layout,
            candidates,
            run_id=run.standing.run_id,
            judge=Judge(epoch=claim.epoch, prepare=claim.prepare, level=_level(request), chosen=request.format),
            timeout_seconds=request.timeout_seconds,
            clock=self.clock,
            # pods that were deleted by force may still write: what was read before that says little
            volume_time=None if request.drain_forced else self.volume_time,
        )
        self.report = replace(
            self.report,
            checked_count=walked.checked,
            checked_bytes=walked.bytes,
            validate_seconds=walked.seconds,
            refused=walked.refused,
        )
        return walked

    # -- after the decision ----------------------------------------------------------------------------------------

    def _move(self, run: Run, claim: Claim, decision: Decision) -> None:
        """What a decision puts aside: ours, or that of an earlier prepare, which may have died before."""
        layout = run.standing.layout
        restarts = decision.outcome is Outcome.RESTART and decision.reason in _LEAVES_CHECKPOINTS
        if not decision.refused and not restarts:
            return
        still_head(self.volume, layout, claim)
        seen = read_seen(self.volume, layout, decision)
        quarantine.quarantine(self.volume, layout, decision, seen)
        if not restarts:
            return
        inventory = take_inventory(
            self.volume,
            layout,
            decided=newest_decision(self.volume, layout, below=decision.epoch),
            directory=decision.checkpoint_directory,
            epoch=decision.epoch,
            chosen=self.request.format,
        )
        quarantine.abandon(self.volume, layout, decision, inventory.present, seen)

    def _answer(self, run: Run, record: RunRecord, decision: Decision, note: str) -> None:
        self.report = replace(
            self.report,
            outcome=decision.outcome,
            reason=decision.reason,
            message=_with_note(decision.message, note),
            checkpoint=decision.base,
            refused=decision.refused or self._refused_before(record, decision),
            wandb_run_id=self._wandb_run_id(run, record, decision, at_most=decision.epoch),
        )
        self.report = replace(self.report, refused_count=len(self.report.refused))

    # -- giving way to a new run -----------------------------------------------------------------------------------

    def _give_way(self, run: Run, claim: Claim, decision: Decision) -> Run:
        """All checkpoints were refused: the old run points to its successor before that one is claimed."""
        old = run.standing
        still_head(self.volume, old.layout, claim)
        seen = read_seen(self.volume, old.layout, decision)
        quarantine.quarantine(self.volume, old.layout, decision, seen)
        self.report = replace(
            self.report,
            run_id=None,
            epoch=0,
            reason=StartReason.ALL_REFUSED,
            previous_run_id=old.run_id,
            refused=decision.refused,
        )
        after = new_run(self.volume, self.request, previous=old)
        mine = SupersededBy(run_id=after.standing.run_id, owner=self.request.owner)
        if not publish_record(self.volume, old.layout.superseded_by, mine):
            found = read_record(self.volume, old.layout.superseded_by, SupersededBy.from_value)
            if found is None or found.run_id != mine.run_id:
                raise blocked(BlockedReason.CLAIM_LOST, f"run {old.run_id} was superseded by somebody else meanwhile")
        return after

    def _refused_before(self, record: RunRecord, decision: Decision) -> tuple[Refusal, ...]:
        """What made the run before this one give way: a fresh start says why each time it is asked."""
        if record.previous_run_id is None or decision.outcome is not Outcome.FRESH:
            return ()
        old = layout_of(self.request, record.previous_run_id)
        last = newest_decision(self.volume, old, below=highest_epoch(self.volume, old) + 1)
        return last.refused if last is not None else ()


def _with_note(message: str, note: str) -> str:
    return f"{message[: 498 - len(note)]}; {note}" if note else message[:500]


def _level(request: PrepareRequest) -> Level:
    """What is copied is compared with what was judged, byte for byte."""
    return Level.FULL if request.drain_forced else request.level


def _remarks(walked: Walk) -> str:
    more = f" (and {len(walked.remarks) - 1} more such)" if len(walked.remarks) > 1 else ""
    return f"{walked.remarks[0]}{more}"


def _require_decisions(inventory: Inventory, claim: Claim, decided: Optional[Decision]) -> None:
    """Checkpoints of an epoch are only written after its decision. Raises Stopped where that one is gone."""
    newest = decided.epoch if decided is not None else 0
    orphans = [item.path for item in inventory.judged if item.epoch is not None and newest < item.epoch < claim.epoch]
    if orphans:
        raise blocked(
            BlockedReason.RECORD_INVALID,
            f"{orphans[-1]} was committed, and the decision that let it be written is gone from epochs/: put it back",
        )
