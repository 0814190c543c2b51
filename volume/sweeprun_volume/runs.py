"""Which run is prepared: the named one, an own one that a lost answer hides, an adopted one, or a new one."""

from __future__ import annotations

import base64
import hashlib
import posixpath
from typing import Optional

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import CLAIMS, INITS, MARKER
from sweeprun_protocol.prepare import PrepareRequest
from sweeprun_protocol.reasons import AdoptionScope, BlockedReason, Outcome
from sweeprun_protocol.records import InitRecord

from . import adoption
from .claims import describe
from .discovery import fixed_part
from .errors import Stopped, blocked
from .operations import DIRECTORY, Volume
from .records_io import read_record
from .standings import Standing, foreign_markers, layout_of, look, parent_of, read_init_of_run, siblings

_RUN_ID_LENGTH = 63
_HASH_LENGTH = 10
_MAX_TRIES = 64
_MAX_HOPS = 64


@dataclass(frozen=True)
class Run:
    standing: Standing
    adopted: bool
    """It was somebody else's, or a script's."""
    lost: BlockedReason
    """What to answer where another owner claims it first."""
    init: Optional[InitRecord] = None
    """New runs with sweep_init: what it published."""
    previous_run_id: Optional[str] = None
    """New runs in the place of one whose checkpoints were all refused."""


def find_run(volume: Volume, request: PrepareRequest, *, volume_time: float) -> Run:
    """Raises Stopped: Blocked, Candidates, InitRequired."""
    if request.run_id is not None:
        return _named(volume, request, request.run_id, volume_time)
    standings = list(siblings(volume, request))
    own = [item for item in standings if item.held_by(request.owner.uid) and _is_still(item, request)]
    if own:
        # an answer was lost: whatever this owner claimed before is its run, or was given up for the one that is
        first = next((item for item in own if item.superseded_by is not None), own[-1])
        return _own(volume, request, *_follow(volume, request, first.run_id))
    if request.adoption.take is not None:
        return _taken(volume, request, request.adoption.take, volume_time)
    found = adoption.candidates(volume, request, standings, volume_time=volume_time)
    if found:
        raise adoption.offer(found)
    return new_run(volume, request, previous=None)


def _is_still(standing: Standing, request: PrepareRequest) -> bool:
    after = standing.superseded_by
    return after is None or after.owner.uid == request.owner.uid


def _own(volume: Volume, request: PrepareRequest, standing: Standing, previous: Optional[Standing]) -> Run:
    """A run of this owner. What the prepare knew that claimed it, and may have died before writing down, is found
    again: where it was taken from, or which result of sweep_init and which earlier run it was made from."""
    init = _init_of(volume, request, previous)
    return Run(
        standing,
        adopted=request.adoption.take == standing.run_id,
        lost=BlockedReason.CLAIM_LOST,
        init=init if init is not None and init.run_id in (None, standing.run_id) else None,
        previous_run_id=previous.run_id if previous is not None else None,
    )


def _taken(volume: Volume, request: PrepareRequest, run_id: str, volume_time: float) -> Run:
    standing = adoption.take(volume, request, run_id, volume_time=volume_time)
    return Run(standing, adopted=True, lost=BlockedReason.ADOPTION_LOST)


def _named(volume: Volume, request: PrepareRequest, run_id: str, volume_time: float) -> Run:
    standing, previous = _follow(volume, request, run_id)
    if previous is not None and standing.head is None:
        return _own(volume, request, standing, previous)
    if not volume.exists(standing.layout.directory) and not standing.foreign_marker:
        if request.started:
            raise blocked(
                BlockedReason.RUN_DIRECTORY_MISSING,
                f"{standing.layout.directory} is gone: the volume is not the one of before, or somebody removed it",
            )
        return new_run(volume, request, previous=None)
    if standing.held_by(request.owner.uid):
        return _own(volume, request, standing, previous)
    if request.started:
        raise blocked(
            BlockedReason.CLAIM_LOST,
            f"run {run_id} belongs to {describe(standing.head)} now"
            if standing.head is not None
            else f"{standing.layout.claims} is gone: somebody removed the claims of run {run_id}",
        )
    return _unowned(volume, request, standing, volume_time)


def _follow(volume: Volume, request: PrepareRequest, run_id: str) -> tuple[Standing, Optional[Standing]]:
    """The run itself, or the one that took its place if this owner made it so, with the one before that."""
    previous: Optional[Standing] = None
    for _ in range(_MAX_HOPS):
        at_least = request.known_epoch if run_id == request.run_id else 0
        standing = look(volume, request, run_id, at_least=at_least)
        after = standing.superseded_by
        if after is None:
            return standing, previous
        volume.sync_name(standing.layout.superseded_by)
        if after.owner.uid != request.owner.uid:
            raise blocked(BlockedReason.RUN_ID_TAKEN, f"run {run_id} was superseded by run {after.run_id} of another")
        if not volume.exists(layout_of(request, after.run_id).directory):
            raise blocked(BlockedReason.RUN_DIRECTORY_MISSING, f"run {after.run_id}, successor of {run_id}, is gone")
        previous, run_id = standing, after.run_id
    raise blocked(BlockedReason.RECORD_INVALID, f"run {request.run_id} was superseded more than {_MAX_HOPS} times")


def _unowned(volume: Volume, request: PrepareRequest, standing: Standing, volume_time: float) -> Run:
    """A named run of a first prepare that is there already."""
    run_id = standing.run_id
    if standing.result is not None:
        raise blocked(BlockedReason.RUN_COMPLETED, f"run {run_id} is complete and was {describe(standing.head)}'s")
    if standing.unmarked and _is_empty(volume, request, standing):
        return new_run(volume, request, previous=None)
    if request.adoption.take == run_id:
        return _taken(volume, request, run_id, volume_time)
    if request.adoption.scope is not AdoptionScope.NONE:
        found = adoption.candidates(volume, request, [standing], volume_time=volume_time)
        if found:
            raise adoption.offer(found)
    whose = "holds checkpoints of a script" if standing.unmarked else f"belongs to {describe(standing.head)}"
    raise blocked(
        BlockedReason.RUN_ID_TAKEN, f"run {run_id} {whose} and adoption scope {request.adoption.scope} excludes it"
    )


def _is_empty(volume: Volume, request: PrepareRequest, standing: Standing) -> bool:
    """Nothing that a run leaves: a directory made by an interrupted prepare, or by hand in advance."""
    first = fixed_part(request.checkpoint_directory)
    entries = volume.entries(posixpath.join(standing.layout.directory, first))
    if first:
        return not entries
    return not any(entry.kind == DIRECTORY and entry.name != CLAIMS for entry in entries)


def new_run(volume: Volume, request: PrepareRequest, *, previous: Optional[Standing]) -> Run:
    """Name and reserve a run that is not there yet.

    Raises:
        Stopped: InitRequired where sweep_init has to run first; Blocked(RunIdTaken).
    """
    init = _init_result(volume, request, previous)
    named = init.run_id if init is not None else None
    if previous is None and request.run_id is not None:
        if named is not None and named != request.run_id:
            raise blocked(BlockedReason.INIT_INVALID, f"sweep_init names run {named}, spec.runId says {request.run_id}")
        named = request.run_id
    if previous is not None and named == previous.run_id:
        raise blocked(
            BlockedReason.INIT_INVALID,
            f"sweep_init names run {named} again, whose checkpoints were all refused: a fresh start needs a new run ID",
        )
    volume.make_directories(parent_of(request))
    standing = _reserve(volume, request, named) if named is not None else _allocate(volume, request, previous)
    return Run(
        standing,
        adopted=False,
        lost=BlockedReason.RUN_ID_TAKEN,
        init=init,
        previous_run_id=previous.run_id if previous is not None else None,
    )


def _init_result(volume: Volume, request: PrepareRequest, previous: Optional[Standing]) -> Optional[InitRecord]:
    record = _init_of(volume, request, previous)
    if record is None and request.init_key is not None:
        raise Stopped(Outcome.INIT_REQUIRED, "a new run ID is needed: sweep_init has to run first")
    return record


def _init_of(volume: Volume, request: PrepareRequest, previous: Optional[Standing]) -> Optional[InitRecord]:
    """What sweep_init left for this fresh start; no run is made of what an earlier one was made of."""
    key = request.init_key
    if key is None:
        return None
    used = read_init_of_run(volume, previous.layout) if previous is not None else None
    if used is not None and used.key == key:
        return None
    return read_record(volume, init_record_path(key), InitRecord.from_value)


def init_record_path(key: str) -> str:
    return posixpath.join(INITS, f"{key}.json")


def _reserve(volume: Volume, request: PrepareRequest, run_id: str) -> Standing:
    layout = layout_of(request, run_id)
    made = volume.make_directory(layout.directory)
    standing = look(volume, request, run_id)
    if _may_become_ours(volume, request, standing, made=made):
        return standing
    raise blocked(BlockedReason.RUN_ID_TAKEN, f"run {run_id} exists and belongs to {describe(standing.head)}")


def _may_become_ours(volume: Volume, request: PrepareRequest, standing: Standing, *, made: bool) -> bool:
    """The directory that we made may hold the claim of somebody who found it empty: the claim decides, not the name."""
    if standing.superseded_by is not None or standing.result is not None:
        return False
    if standing.head is not None:
        return standing.held_by(request.owner.uid)
    return made or (not standing.foreign_marker and _is_empty(volume, request, standing))


def _allocate(volume: Volume, request: PrepareRequest, previous: Optional[Standing]) -> Standing:
    """The first free name of a fixed sequence: a retry walks the same one and finds what it made."""
    for attempt in range(_MAX_TRIES):
        run_id = allocated_run_id(request.sweep_name, request.owner.uid, request.fresh_number, attempt)
        if previous is not None and run_id == previous.run_id:
            continue
        made = volume.make_directory(layout_of(request, run_id).directory)
        standing = look(volume, request, run_id)
        if _may_become_ours(volume, request, standing, made=made):
            return standing
    raise blocked(BlockedReason.RUN_ID_TAKEN, f"{_MAX_TRIES} run IDs in a row are taken below {parent_of(request)}")


def allocated_run_id(sweep_name: str, owner_uid: str, fresh_number: int, attempt: int) -> str:
    """`<sweep name, cut>.r.<10 characters>`, the same for the same owner, fresh start and attempt."""
    seed = f"{owner_uid}\0{fresh_number}\0{attempt}".encode()
    tail = base64.b32encode(hashlib.sha256(seed).digest()).decode("ascii").lower()[:_HASH_LENGTH]
    room = _RUN_ID_LENGTH - _HASH_LENGTH - len(".r.")
    return f"{sweep_name[:room].rstrip('._-')}.r.{tail}"


def markers_of(standing: Standing) -> tuple[str, ...]:
    """All markers that say that this run is incomplete; ours is the first."""
    assert posixpath.basename(standing.layout.marker) == MARKER
    return (standing.layout.marker, *foreign_markers(standing.layout, standing.run_id))
