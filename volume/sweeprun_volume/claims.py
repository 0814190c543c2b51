"""Claims: who made which epoch of a run. The highest one fences all that came before it."""

from __future__ import annotations

from typing import Callable, Optional

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.layout import MAX_EPOCH, RunLayout, parse_claim_name
from sweeprun_protocol.reasons import BlockedReason, Outcome
from sweeprun_protocol.records import Claim, Owner

from .errors import Stopped, VolumeError, blocked
from .operations import Volume
from .records_io import publish_record, read_record


def highest_epoch(volume: Volume, layout: RunLayout, *, at_least: int = 0) -> int:
    """Epoch of the highest claim, 0 without any.

    Listings of network file systems lag behind, so that the next names are tried as well: claims have no gaps.
    `at_least` is an epoch that is known to exist from elsewhere.
    """
    listed = [parse_claim_name(entry.name) for entry in volume.entries(layout.claims)]
    epoch = max((number for number in listed if number is not None), default=0)
    if at_least > epoch and volume.exists(layout.claim(at_least)):
        epoch = at_least
    while epoch < MAX_EPOCH and volume.exists(layout.claim(epoch + 1)):
        epoch += 1
    return epoch


def read_claim(volume: Volume, layout: RunLayout, epoch: int) -> Optional[Claim]:
    """Raises RecordError where the claim is not that of this epoch."""
    path = layout.claim(epoch)
    claim = read_record(volume, path, Claim.from_value)
    if claim is not None and claim.epoch != epoch:
        raise RecordError(path, f"holds the claim of epoch {claim.epoch}")
    return claim


def read_head(volume: Volume, layout: RunLayout, *, at_least: int = 0) -> Optional[Claim]:
    """The highest claim; None where the run was never claimed."""
    epoch = highest_epoch(volume, layout, at_least=at_least)
    if epoch == 0:
        return None
    claim = read_claim(volume, layout, epoch)
    if claim is None:
        raise RecordError(layout.claim(epoch), "was listed and cannot be opened")
    return claim


def claim_epoch(
    volume: Volume,
    layout: RunLayout,
    *,
    run_id: str,
    owner: Owner,
    prepare: int,
    head: Optional[Claim],
    take: bool,
    lost: BlockedReason,
    now: Callable[[], float],
) -> Claim:
    """Make the epoch after `head` ours; a retry of the same prepare gets the epoch it already has.

    Args:
        take: `head` may be another owner's, who was proved to be gone.
        lost: what to answer where another owner holds the run.

    Raises:
        Stopped: Superseded where a later prepare of this owner is at the head; Blocked(`lost`) where someone else was
            faster.
    """
    while True:
        if head is not None and head.owner.uid == owner.uid:
            if head.prepare == prepare:
                volume.sync_name(layout.claim(head.epoch))
                return head
            if head.prepare > prepare:
                raise superseded(head, prepare)
        elif head is not None and not take:
            raise blocked(lost, f"{describe(head)} holds epoch {head.epoch} of run {run_id}")
        epoch = head.epoch + 1 if head is not None else 1
        if epoch > MAX_EPOCH:
            raise blocked(BlockedReason.RECORD_INVALID, f"{layout.claims}: no epoch is left after {MAX_EPOCH}")
        mine = Claim(epoch=epoch, run_id=run_id, owner=owner, prepare=prepare, time=now())
        if publish_record(volume, layout.claim(epoch), mine):
            return mine
        head = read_head(volume, layout, at_least=epoch)
        if head is None or head.epoch < epoch:
            raise VolumeError(
                BlockedReason.IO_ERROR, f"{layout.claim(epoch)} was published by somebody and does not show"
            )
        if head.owner.uid != owner.uid:
            raise blocked(lost, f"{layout.claim(epoch)}: {describe(head)} claimed this epoch first")


def superseded(head: Claim, prepare: int) -> Stopped:
    return Stopped(
        Outcome.SUPERSEDED,
        f"prepare {head.prepare} of the same owner claimed epoch {head.epoch}: prepare {prepare} is over",
        run_id=head.run_id,
        head_prepare=head.prepare,
    )


def still_head(volume: Volume, layout: RunLayout, claim: Claim) -> None:
    """Raises Stopped where a later claim exists: nothing may be decided or moved any more."""
    head = read_head(volume, layout, at_least=claim.epoch)
    if head is None or head.epoch == claim.epoch:
        return
    if head.owner.uid == claim.owner.uid:
        raise superseded(head, claim.prepare)
    raise blocked(BlockedReason.CLAIM_LOST, f"{describe(head)} claimed epoch {head.epoch} meanwhile")


def describe(head: Optional[Claim]) -> str:
    if head is None:
        return "nobody"
    owner = head.owner
    return f"SweepRun {owner.namespace}/{owner.name} (UID {owner.uid}, cluster {owner.cluster})"
