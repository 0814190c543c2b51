"""How the attempt of an epoch ended, and whether that completes the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Optional, TypeVar

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.prepare import pods_digest
from sweeprun_protocol.reasons import CompletionPolicy
from sweeprun_protocol.records import (
    CompleteRecord,
    Decision,
    EndRecord,
    LibraryRecord,
    Owner,
    Result,
    StartRecord,
)

from .errors import UnsafeEntryError
from .operations import Volume
from .records_io import publish_record, read_record

T = TypeVar("T")


@dataclass(frozen=True)
class Evidence:
    """What the pods of one epoch left on the volume."""

    starts: Mapping[str, StartRecord]
    ends: Mapping[str, EndRecord]
    library: bool
    """Training code initialised the library: an exit code alone says nothing then."""
    complete: Optional[CompleteRecord]
    witnessed: bool = False
    """The cluster showed that all these pods ended well by themselves."""

    @property
    def last_step(self) -> Optional[int]:
        return max((end.last_step for end in self.ends.values() if end.last_step is not None), default=None)

    @property
    def first_step_seconds(self) -> Optional[float]:
        known = [end.first_step_seconds for end in self.ends.values() if end.first_step_seconds is not None]
        return max(known, default=None)


NO_EVIDENCE = Evidence(starts={}, ends={}, library=False, complete=None)


def gather(volume: Volume, layout: RunLayout, decision: Decision, *, ended_pods: Optional[str] = None) -> Evidence:
    """Read by name, slot for slot: listings of network file systems lag.

    Args:
        ended_pods: what the request says of the attempt's pods.
    """
    epoch = decision.epoch
    starts = {slot: _of_pod(volume, layout.start(epoch, slot), StartRecord.from_value) for slot in decision.slots}
    ends = {slot: _of_pod(volume, layout.end(epoch, slot), EndRecord.from_value) for slot in decision.slots}
    return Evidence(
        starts={slot: record for slot, record in starts.items() if record is not None},
        ends={slot: record for slot, record in ends.items() if record is not None},
        library=_of_pod(volume, layout.library(epoch), LibraryRecord.from_value) is not None
        or volume.exists(layout.library(epoch)),
        complete=_of_pod(volume, layout.completion(epoch), CompleteRecord.from_value),
        witnessed=ended_pods is not None
        and ended_pods == pods_digest(record.pod_uid for record in starts.values() if record is not None),
    )


def is_complete(decision: Decision, evidence: Evidence) -> bool:
    """Pure. A stopped process that saves politely and exits 0 has completed nothing, nor has one slot alone."""
    if evidence.library or decision.completion is CompletionPolicy.EXPLICIT:
        return evidence.complete is not None and evidence.complete.epoch == decision.epoch
    return bool(decision.slots) and all(_ended_well(slot, decision.epoch, evidence) for slot in decision.slots)


def _ended_well(slot: str, epoch: int, evidence: Evidence) -> bool:
    start, end = evidence.starts.get(slot), evidence.ends.get(slot)
    if start is not None and end is None and start.unwrapped:
        return evidence.witnessed and start.epoch == epoch and start.slot == slot
    if start is None or end is None:
        return False
    same = start.epoch == end.epoch == epoch and start.slot == end.slot == slot and start.pod_uid == end.pod_uid
    return same and end.exit_code == 0 and not end.told_to_stop


def publish_result(
    volume: Volume,
    layout: RunLayout,
    *,
    run_id: str,
    owner: Owner,
    decision: Decision,
    evidence: Evidence,
    saved_step: Optional[int],
    now: Callable[[], float],
) -> Result:
    """The completion record, ours or that of whoever was faster. `saved_step` is that of the newest checkpoint."""
    complete = evidence.complete
    step = complete.step if complete is not None and complete.step is not None else evidence.last_step
    step = step if step is not None else saved_step
    mine = Result(
        run_id=run_id,
        epoch=decision.epoch,
        owner=owner,
        step=step if step is not None else (decision.base.step if decision.base is not None else None),
        metrics=dict(complete.metrics) if complete is not None else {},
        time=now(),
    )
    if publish_record(volume, layout.result, mine):
        return mine
    found = read_record(volume, layout.result, Result.from_value)
    if found is None:
        raise RecordError(layout.result, "was published by somebody and cannot be opened")
    return found


def _of_pod(volume: Volume, path: str, read: Callable[[Any, str], T]) -> Optional[T]:
    """A record that a pod wrote. One that cannot be read proves nothing: it counts as not written."""
    try:
        return read_record(volume, path, read)
    except (RecordError, UnsafeEntryError):
        return None
