"""Decisions on the volume, and the foreign files as they were when one was made."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional

from sweeprun_protocol.codec import Fields, RecordError, dump, parse
from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.prepare import MAX_EARLIER, Earlier
from sweeprun_protocol.reasons import BlockedReason, CompletionPolicy, Outcome, StartReason
from sweeprun_protocol.records import Claim, Decision, read_relative, read_whole

from .claims import read_claim, still_head
from .errors import VolumeError
from .formats.finding import MAX_FOUND
from .lineage import FileFacts
from .operations import Volume
from .records_io import publish_record, read_record

MAX_DECISION_BYTES = 8 << 20


@dataclass(frozen=True)
class Seen:
    """`epochs/<E>/foreign-<hash>.json`: foreign files before the attempt of E; one that changed since is the attempt's.
    The hash is that of its bytes, and the decision names it."""

    epoch: int
    files: Mapping[str, FileFacts]

    def to_dict(self) -> dict[str, Any]:
        items = sorted(self.files.items())
        return {"epoch": self.epoch, "files": [_file_to_dict(path, facts) for path, facts in items]}

    @staticmethod
    def from_value(value: Any, where: str) -> Seen:
        fields = Fields(value, where)
        files = fields.records("files", _file_from_value, most=2 * MAX_FOUND)
        return Seen(epoch=fields.integer("epoch", least=1), files=dict(files))


def _file_to_dict(path: str, facts: FileFacts) -> dict[str, Any]:
    # beyond 2**53, where not every JSON reader keeps integers: text
    return {"path": path, "size": facts.size, "mtimeNs": str(facts.mtime_ns), "inode": str(facts.inode)}


def _file_from_value(value: Any, where: str) -> tuple[str, FileFacts]:
    fields = Fields(value, where)
    facts = FileFacts(fields.integer("size"), read_whole(fields, "mtimeNs"), read_whole(fields, "inode"))
    return read_relative(fields, "path"), facts


def read_decision(volume: Volume, layout: RunLayout, epoch: int) -> Optional[Decision]:
    """None where there is none, and where the epoch was closed without one."""
    decision = _read(volume, layout, epoch)
    return None if decision is None or _is_closed(decision) else decision


def _read(volume: Volume, layout: RunLayout, epoch: int) -> Optional[Decision]:
    path = layout.decision(epoch)
    decision = read_record(volume, path, Decision.from_value, limit=MAX_DECISION_BYTES)
    if decision is not None and decision.epoch != epoch:
        raise RecordError(path, f"holds the decision of epoch {decision.epoch}")
    return decision


def newest_decision(volume: Volume, layout: RunLayout, *, below: int) -> Optional[Decision]:
    """The decision of the newest epoch under `below` that has one."""
    # each is asked for by name: a listing may lag, and the decision that it lacks would change what may be read
    for epoch in range(below - 1, 0, -1):
        decision = read_decision(volume, layout, epoch)
        if decision is not None:
            return decision
    return None


def earlier_attempts(volume: Volume, layout: RunLayout, *, uid: str, prepare: int, head: int) -> Earlier:
    """Attempts of this owner that came so far that a pod started, by the newest MAX_EARLIER epochs: a decision whose
    answer was lost made none."""
    counts = dict.fromkeys((Outcome.FRESH, Outcome.RESUME, Outcome.RESTART), 0)
    for epoch in range(head, max(0, head - MAX_EARLIER), -1):
        claim = read_claim(volume, layout, epoch)
        if claim is None or claim.owner.uid != uid or claim.prepare == prepare:
            continue
        decision = read_decision(volume, layout, epoch)
        if decision is not None and decision.outcome in counts and _was_started(volume, layout, decision):
            counts[decision.outcome] += 1
    return Earlier(sum(counts.values()), counts[Outcome.RESUME], counts[Outcome.RESTART])


def _was_started(volume: Volume, layout: RunLayout, decision: Decision) -> bool:
    return any(volume.exists(layout.start(decision.epoch, slot)) for slot in decision.slots)


def close_epochs(volume: Volume, layout: RunLayout, claim: Claim, *, directory: str) -> Optional[Decision]:
    """The decision of the newest epoch below the claim that has one. Those between get none any more.

    A prepare that was stopped between its last look at the claims and its decision would else publish one late, and
    what counts would depend on who looks when. Publishing also tells what a lookup may not: that there is none is
    remembered by clients of network file systems.
    """
    for epoch in range(claim.epoch - 1, 0, -1):
        decision = _read(volume, layout, epoch)
        if decision is None:
            if publish_record(volume, layout.decision(epoch), _closed(epoch, claim, directory)):
                continue
            decision = _required(volume, layout, epoch)
        if not _is_closed(decision):
            return decision
    return None


def _closed(epoch: int, claim: Claim, directory: str) -> Decision:
    return Decision(
        epoch=epoch,
        prepare=claim.prepare,
        outcome=Outcome.SUPERSEDED,
        reason=None,
        message=f"epoch {claim.epoch} was claimed before this one was decided: no attempt of it may start",
        base=None,
        eligible=(),
        refused=(),
        slots=(),
        completion=CompletionPolicy.EXPLICIT,
        checkpoint_directory=directory,
    )


def _is_closed(decision: Decision) -> bool:
    return decision.outcome is Outcome.SUPERSEDED


def _required(volume: Volume, layout: RunLayout, epoch: int) -> Decision:
    decision = _read(volume, layout, epoch)
    if decision is None:
        place = layout.decision(epoch)
        raise VolumeError(BlockedReason.IO_ERROR, f"{place} was published by somebody and does not show yet")
    return decision


def publish_decision(volume: Volume, layout: RunLayout, claim: Claim, decision: Decision, seen: Seen) -> Decision:
    """Once per epoch: ours, or the one that a twin of this prepare published first.

    What was seen goes first: a decision without it could not tell an abandoned foreign file from a new one.
    Raises Stopped where a later prepare closed the epoch.
    """
    path = layout.decision(decision.epoch)
    before = dump(seen.to_dict())
    decision = replace(decision, foreign=_seen_name(before))
    data = dump(decision.to_dict())
    if max(len(data), len(before)) > MAX_DECISION_BYTES:
        raise RecordError(path, f"would be larger than {MAX_DECISION_BYTES} bytes: too many checkpoints to keep apart")
    volume.make_directories(layout.epoch(decision.epoch))
    volume.publish(posixpath.join(layout.epoch(decision.epoch), _seen_name(before)), before)
    if volume.publish(path, data):
        return decision
    found = _required(volume, layout, decision.epoch)
    if _is_closed(found):
        still_head(volume, layout, claim)
        raise VolumeError(BlockedReason.IO_ERROR, f"{path}: {found.message}; that claim does not show yet")
    return found


def read_seen(volume: Volume, layout: RunLayout, decision: Decision) -> Mapping[str, FileFacts]:
    """Foreign checkpoints as they were when it was decided. Raises RecordError where they are not what it names."""
    if decision.foreign is None:
        raise RecordError(layout.decision(decision.epoch), "names no record of foreign checkpoints")
    path = posixpath.join(layout.epoch(decision.epoch), decision.foreign)
    data = volume.read(path, limit=MAX_DECISION_BYTES)
    if data is None:
        raise RecordError(path, f"is missing, though epoch {decision.epoch} was decided")
    if _seen_name(data) != decision.foreign:
        raise RecordError(path, "is not what the decision names: it was changed")
    return Seen.from_value(parse(data, where=path, limit=MAX_DECISION_BYTES), path).files


def _seen_name(data: bytes) -> str:
    return f"foreign-{hashlib.sha256(data).hexdigest()[:16]}.json"


def gives_way(decision: Decision) -> bool:
    """This run ends here without completing: all was refused and a new run takes its place. No slot may start."""
    return decision.outcome is Outcome.FRESH and decision.reason is StartReason.ALL_REFUSED and not decision.slots
