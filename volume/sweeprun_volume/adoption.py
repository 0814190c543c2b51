"""Adoption of incomplete runs, in two steps: prepare lists candidates, the operator proves that their owners are gone,
a second prepare takes one at the claim at which it was listed."""

from __future__ import annotations

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.manifest import digest_of
from sweeprun_protocol.prepare import Candidate, PrepareRequest
from sweeprun_protocol.reasons import AdoptionScope, BlockedReason, Outcome

from .errors import Stopped, UnsafeEntryError, blocked
from .operations import Volume
from .standings import Standing, configuration_digest, idle_seconds, look


def candidates(
    volume: Volume, request: PrepareRequest, standings: list[Standing], *, volume_time: float
) -> list[Candidate]:
    """Longest silent first: of many live siblings and one that was left behind, the latter comes through."""
    found = [
        Candidate(
            run_id=standing.run_id,
            epoch=standing.head.epoch if standing.head is not None else 0,
            owner=standing.head.owner if standing.head is not None else None,
            idle_seconds=idle_seconds(volume, standing.layout, now=volume_time),
        )
        for standing in standings
        if in_scope(volume, request, standing)
    ]
    return sorted(found, key=lambda candidate: (-candidate.idle_seconds, candidate.run_id))


def in_scope(volume: Volume, request: PrepareRequest, standing: Standing) -> bool:
    scope = request.adoption.scope
    if not _may_go_on(request, standing) or standing.held_by(request.owner.uid) or scope is AdoptionScope.NONE:
        return False
    if scope is AdoptionScope.SAME_RUN_ID:
        return standing.run_id == request.run_id
    if scope is AdoptionScope.SAME_CONFIG:
        return _same_configuration(volume, request, standing)
    return True


def _may_go_on(request: PrepareRequest, standing: Standing) -> bool:
    """A script's exit trap may have removed its marker: where nobody ever claimed the run, that the user names it
    stands for the marker. Without that word a run that lacks one is taken for finished."""
    return standing.incomplete or (standing.unmarked and standing.run_id == request.run_id)


def offer(found: list[Candidate]) -> Stopped:
    names = ", ".join(candidate.run_id for candidate in found[:5])
    return Stopped(
        Outcome.CANDIDATES,
        f"{len(found)} incomplete run(s) could be adopted: {names}; their owners must be proved gone first",
        candidates=tuple(found),
    )


def take(volume: Volume, request: PrepareRequest, run_id: str, *, volume_time: float) -> Standing:
    """The run, if it still stands as it was listed. Raises Stopped: Blocked(AdoptionLost)."""
    standing = look(volume, request, run_id, at_least=request.adoption.take_epoch)
    if standing.held_by(request.owner.uid):
        return standing
    epoch = standing.head.epoch if standing.head is not None else 0
    if epoch != request.adoption.take_epoch:
        raise _lost(f"run {run_id} is at epoch {epoch} now, it was listed at epoch {request.adoption.take_epoch}")
    if not _may_go_on(request, standing):
        raise _lost(f"run {run_id} is no longer incomplete")
    if not in_scope(volume, request, standing):
        raise _lost(f"run {run_id} is outside adoption scope {request.adoption.scope}")
    if standing.head is None or standing.head.owner.cluster != request.owner.cluster:
        _require_silence(volume, request, standing, volume_time)
    return standing


def _require_silence(volume: Volume, request: PrepareRequest, standing: Standing, volume_time: float) -> None:
    """Whom no API server can vouch for must have been silent."""
    idle = idle_seconds(volume, standing.layout, now=volume_time, whole=True)
    if idle < request.adoption.idle_seconds:
        raise _lost(
            f"run {standing.run_id} changed {idle} s ago; without an owner in this cluster it must be silent "
            f"for {request.adoption.idle_seconds} s"
        )


def _same_configuration(volume: Volume, request: PrepareRequest, standing: Standing) -> bool:
    text = request.configuration.text
    if text is None:
        return False
    try:
        found = configuration_digest(volume, standing.layout, request.configuration.file_name)
    except (RecordError, UnsafeEntryError):
        return False  # a link, say, or larger than any configuration: not what we would write
    return found == digest_of(text.encode())


def _lost(message: str) -> Stopped:
    return blocked(BlockedReason.ADOPTION_LOST, message)
