"""What the user's bounds say may go: old checkpoints of the own format, and old entries of quarantine.

Asked for after a decision is durable, and for that decision alone. Without a bound nothing is deleted.

The rule for checkpoints. Candidates are members of the decision's sealed set at or below its base, newest first by
step, then epoch. A member is verified where a prepare chose it as a base once, which left its digest in a record, and
where its manifest still has that digest and its files their sizes. Members are kept until `keepLast` verified ones are
among them; those that come after, verified or not, go. So what nobody verified neither counts nor goes before enough
that is newer was verified; the verified ones are as far apart as the interruptions, and all between them is kept.

Never deleted: anything, where the base is not what was decided; the base, so the newest verified one; the pinned one,
which the operator knows by its last answer; anything of a running attempt, whose epoch is the decision's; what a
decision left outside its sealed set (abandoned branches, late commits); foreign files, links, weights, and whatever
does not say by its manifest that it is this run's checkpoint of this step and epoch; anything, once a later claim
exists. `choosing.known_to_exist` asks for the base or the pinned one alone, so nothing that is missing is our doing.
"""

from __future__ import annotations

import posixpath
from dataclasses import field
from typing import Optional

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import RunLayout, parse_step_name
from sweeprun_protocol.prepare import PrepareRequest
from sweeprun_protocol.reasons import Format, Level
from sweeprun_protocol.records import CheckpointRef, Claim, Decision

from . import quarantine, trash
from .clock import Clock, Deadline
from .errors import OutOfTimeError, TooManyEntriesError, UnsafeEntryError, VolumeError
from .formats import Context, Refused
from .formats.own import read_manifest
from .lineage import Candidate, kept
from .operations import Volume
from .validate import check

REMOVAL_SECONDS = 30.0
"""What one prepare spends on deleting; the attempt waits for its answer, and the next prepare goes on."""

_TROUBLE = (RecordError, TooManyEntriesError, UnsafeEntryError, VolumeError, OSError)
_NO_TIME = f"{REMOVAL_SECONDS:g} s were not enough"
_LONGEST_NOTE = 240


def tidy(
    volume: Volume,
    layout: RunLayout,
    request: PrepareRequest,
    claim: Claim,
    decision: Decision,
    *,
    clock: Clock,
) -> str:
    """Delete what the bounds of `request` let go, and what earlier prepares left in the trash.

    Returns:
        What was deleted, and what is left and why, for people; empty where there was nothing to do. Whatever cannot be
        deleted is asked for again by the next prepare, and is never the answer of this one.

    Raises:
        Stopped: a later claim exists.
    """
    return _Tidying(volume, layout, claim, decision, request.pinned, Deadline.after(REMOVAL_SECONDS, clock)).run(
        request.keep_last, request.quarantine_keep_last
    )


def empty_trash(
    volume: Volume, layout: RunLayout, request: PrepareRequest, decision: Optional[Decision], *, clock: Clock
) -> str:
    """What prepares of a run that is complete now left behind. Returns as `tidy`."""
    deadline = Deadline.after(REMOVAL_SECONDS, clock)
    problems: list[str] = []
    _empty(volume, layout, _needed(decision, request.pinned), deadline, problems)
    return _told([], problems)


@dataclass()
class _Tidying:
    volume: Volume
    layout: RunLayout
    claim: Claim
    decision: Decision
    pinned: Optional[CheckpointRef]
    deadline: Deadline
    problems: list[str] = field(default_factory=list)
    """One for each thing that is left."""

    def run(self, keep_last: Optional[int], quarantined: Optional[int]) -> str:
        done = []
        if keep_last is not None:
            count = sum(self._throw_away([path]) for path in self._old_checkpoints(keep_last))
            done += [f"old checkpoints deleted: {count} (retention.keepLast {keep_last})"] if count else []
        if quarantined is not None:
            count = sum(self._throw_away(paths) for paths in self._old_quarantine(quarantined))
            done += [f"entries of quarantine deleted: {count} (quarantine.keepLast {quarantined})"] if count else []
        _empty(self.volume, self.layout, _needed(self.decision, self.pinned), self.deadline, self.problems)
        return _told(done, self.problems)

    def _throw_away(self, paths: list[str]) -> bool:
        """What goes together. False where it was gone already, or must be left for another time."""
        try:
            self.deadline.check()
            moved = [trash.throw_away(self.volume, self.layout, self.claim, path) for path in paths]
        except OutOfTimeError:
            self.problems.append(_NO_TIME)
        except _TROUBLE as error:
            self.problems.append(str(error))
        else:
            return any(moved)
        return False

    def _old_quarantine(self, keep_last: int) -> list[list[str]]:
        try:
            return quarantine.surplus(self.volume, self.layout, keep_last=keep_last, epoch=self.decision.epoch)
        except _TROUBLE as error:
            self.problems.append(str(error))
            return []

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def _old_checkpoints(self, keep_last: int) -> list[str]:
        """By the rule above, oldest first, so that what is left of an interrupted deletion has no gap."""
        old: list[str] = []
        base = self.decision.base
        if base is None or base.format is not Format.SWEEPRUN:
            return []
        try:
            if not self._is_verified(base):
                return []
            verified = 0
            for ref in sorted(kept(self.decision).values(), key=lambda ref: (ref.step, ref.epoch), reverse=True):
                if verified < keep_last:
                    verified += self._is_verified(ref)
                elif self._may_go(ref):
                    old.append(ref.path)
        except OutOfTimeError:
            self.problems.append(_NO_TIME)
        except _TROUBLE as error:
            self.problems.append(str(error))
        return old[::-1]

    def _is_verified(self, ref: CheckpointRef) -> bool:
        """Read whole once, and by manifest and sizes still what it was. Raises OutOfTimeError, VolumeError."""
        if ref.digest is None or ref.format is not Format.SWEEPRUN:
            return False
        context = Context(self.volume, self.layout, self.claim.run_id, Level.FAST, self.deadline)
        try:
            check(context, Candidate(ref.format, ref.path, ref.step, ref.epoch, ref.digest, None))
        except Refused:
            return False
        return True

    def _may_go(self, ref: CheckpointRef) -> bool:
        """Raises OutOfTimeError, VolumeError."""
        self.deadline.check()
        if ref.path in _needed(self.decision, self.pinned) or ref.epoch >= self.decision.epoch:
            return False
        directory, name = posixpath.split(posixpath.join(self.layout.directory, ref.path))
        if directory != self.layout.checkpoints(self.decision.checkpoint_directory, ref.epoch):
            return False
        if ref.format is not Format.SWEEPRUN or parse_step_name(name) != (ref.step, ref.epoch):
            return False
        return self._is_ours(ref, posixpath.join(directory, name))

    def _is_ours(self, ref: CheckpointRef, place: str) -> bool:
        """By its manifest, which is not read through a link."""
        try:
            manifest, _ = read_manifest(self.volume, place)
        except (Refused, UnsafeEntryError):
            return False
        if not manifest.resumable:
            return False
        return (manifest.run_id, manifest.step, manifest.epoch) == (self.claim.run_id, ref.step, ref.epoch)


def _needed(decision: Optional[Decision], pinned: Optional[CheckpointRef]) -> set[str]:
    refs = (decision.base if decision is not None else None, pinned)
    return {ref.path for ref in refs if ref is not None}


def _empty(volume: Volume, layout: RunLayout, spare: set[str], deadline: Deadline, problems: list[str]) -> None:
    try:
        problems += trash.empty(volume, layout, spare=spare, deadline=deadline)
    except _TROUBLE as error:
        problems.append(str(error))


def _told(done: list[str], problems: list[str]) -> str:
    if problems:
        done = [*done, f"left to be deleted by the next prepare: {len(problems)}, the first since {problems[0]}"]
    return "; ".join(done)[:_LONGEST_NOTE]
