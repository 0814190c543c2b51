"""The resume point of an attempt whose predecessor may still write: a copy of it, in the directory of the new epoch.

Own checkpoints need none: their names hold the epoch, and a manifest names every byte. A foreign one lies where the
script of the old attempt wrote it and may write again. The copy is verified against the digest that the old place had
when it was judged, and appears under its name by one rename, whole and durable. It lies in a directory named for that
digest, so that whoever finds it knows what it must hold; nobody but prepare writes below `epochs/`.
"""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Mapping
from dataclasses import replace

from sweeprun_protocol.layout import EPOCHS, RunLayout
from sweeprun_protocol.reasons import BlockedReason, Format
from sweeprun_protocol.records import CheckpointRef, Claim, Decision

from .clock import Deadline
from .errors import UnsafeEntryError, blocked
from .formats import Context, Refused
from .formats.tree import facts_of, walk_files
from .lineage import Candidate, FileFacts
from .operations import FILE, Volume
from .quarantine import moved_name
from .validate import check

PIECE_BYTES = 1 << 20
_DIGITS = 16
"""Of the digest, in the name of the directory that holds the copy."""


def with_base_out_of_reach(
    context: Context, claim: Claim, decision: Decision
) -> tuple[Decision, Mapping[str, FileFacts]]:
    """The decision with a copy as its base, where processes of the attempt before may still write to the base; and
    what the copy looks like. Raises as `copy_resume_point`."""
    base = decision.base
    if base is None or not _is_in_reach(base):
        return decision, {}
    copy = copy_resume_point(context, claim, base)
    older = tuple(ref for ref in decision.eligible if ref.path != base.path)
    message = f"{decision.message}; the last attempt was deleted by force, so it is read from a copy ({copy.path})"
    facts = facts_of(context.volume, posixpath.join(context.layout.directory, copy.path))
    decision = replace(decision, base=copy, eligible=(copy, *older), message=message[:1000])
    return decision, {copy.path: facts} if facts is not None else {}


def _is_in_reach(ref: CheckpointRef) -> bool:
    """Not a copy of before."""
    return ref.format is not Format.SWEEPRUN and ref.path.split("/")[0] != EPOCHS


def copy_resume_point(context: Context, claim: Claim, chosen: CheckpointRef) -> CheckpointRef:
    """`chosen` under another path, with the same digest. Asked again, it finds what it made.

    Args:
        context: level Full, and the time that it may take.
        chosen: what the walk chose, whose digest it has just read.

    Raises:
        Stopped: CheckpointChanged, where what was copied is not what was judged.
        OutOfTimeError, VolumeError: nothing is decided; what was copied so far lies in the trash.
    """
    if chosen.digest is None:
        raise blocked(BlockedReason.CHECKPOINT_CHANGED, f"{chosen.path} was judged without a digest: it is not copied")
    volume, layout = context.volume, context.layout
    copy = replace(chosen, path=_path_of_copy(layout, claim, chosen.path, chosen.digest))
    place = posixpath.join(layout.directory, copy.path)
    if not volume.exists(place):
        _make(context, claim, chosen, place)
    _verify(context, copy, chosen)
    volume.sync_name(place)
    return copy


def _path_of_copy(layout: RunLayout, claim: Claim, path: str, digest: str) -> str:
    """The last name stays: formats and scripts read the step from it."""
    directory = posixpath.relpath(layout.copies(claim.epoch), layout.directory)
    return posixpath.join(directory, digest.partition(":")[2][:_DIGITS], posixpath.basename(path))


def _make(context: Context, claim: Claim, chosen: CheckpointRef, place: str) -> None:
    """In the trash, so that the next prepare removes what a death leaves; then under its name."""
    volume, layout = context.volume, context.layout
    unique = secrets.token_hex(8)
    staging = posixpath.join(layout.trash, moved_name(f"copy-{unique}", claim.epoch))
    staged = posixpath.join(staging, posixpath.basename(chosen.path))
    volume.make_directories(staging)
    try:
        _copy(volume, posixpath.join(layout.directory, chosen.path), staged, context.deadline)
    except (FileNotFoundError, Refused, UnsafeEntryError) as error:
        raise _changed(chosen, str(error)) from None
    below = posixpath.relpath(staged, layout.directory)
    _verify(context, replace(chosen, path=below), chosen)
    volume.make_directories(posixpath.dirname(place))
    volume.move(staged, place)  # a twin of this prepare may have been faster: its copy is as good
    volume.remove_tree(staging, go_on=context.deadline.is_ahead)


def _verify(context: Context, copy: CheckpointRef, chosen: CheckpointRef) -> None:
    place = posixpath.join(context.layout.directory, copy.path)
    facts = facts_of(context.volume, place)
    try:
        check(context, Candidate(copy.format, copy.path, copy.step, copy.epoch, chosen.digest, facts))
    except Refused as refused:
        raise _changed(chosen, refused.message) from None


def _changed(chosen: CheckpointRef, what: str) -> Exception:
    return blocked(
        BlockedReason.CHECKPOINT_CHANGED,
        f"{chosen.path} changed while it was copied: a process of the attempt that was deleted by force may be writing "
        f"there; it is judged anew ({what})",
    )


def _copy(volume: Volume, source: str, target: str, deadline: Deadline) -> None:
    """A file, or a directory with all below it; durable. Raises Refused where there is something else."""
    facts = volume.facts(source)
    if facts is not None and facts.kind == FILE:
        _copy_file(volume, source, target, deadline)
        return
    directories = {target}
    volume.make_directories(target)
    for path, _ in walk_files(volume, source):
        directory = posixpath.dirname(posixpath.join(target, path))
        if directory not in directories:
            directories.add(directory)
            volume.make_directories(directory)
        _copy_file(volume, posixpath.join(source, path), posixpath.join(target, path), deadline)
    for directory in sorted(directories):
        volume.sync_directory(directory)


def _copy_file(volume: Volume, source: str, target: str, deadline: Deadline) -> None:
    buffer = memoryview(bytearray(PIECE_BYTES))
    with volume.open_file(source) as (reading, facts), volume.create_file(target) as writing:
        offset = 0
        # as long as it was when it was opened: one that grows for ever must not fill the volume
        while offset < facts.size:
            deadline.check()
            count = volume.read_at(reading, buffer[: facts.size - offset], offset, source)
            if count == 0:
                break
            volume.write(writing, buffer[:count], target)
            offset += count
