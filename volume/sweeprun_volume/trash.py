"""Deleting in two steps: a rename into the trash, which the head alone may do, and then the removal of what is there.

A prepare that dies between the two leaves nothing half deleted under its own name; the next one goes on.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.records import Claim

from .claims import still_head
from .clock import Deadline
from .errors import UnsafeEntryError, VolumeError
from .operations import Volume
from .quarantine import flat_name, moved_from, moved_name


def throw_away(volume: Volume, layout: RunLayout, claim: Claim, path: str) -> bool:
    """Rename `path`, below the run directory, into the trash; durable. False where it was gone already.

    A later prepare may claim between the look at the head and the rename, which takes as long as the node sleeps, and
    choose what is being renamed. So the head is looked at once more, and what was taken too late goes back: what is
    found missing at a claim was missing before it.

    Raises:
        Stopped: the claim is no longer the head.
        RecordError, UnsafeEntryError, VolumeError: nothing is known then, and `path` is where it was.
    """
    place = posixpath.join(layout.directory, path)
    target = posixpath.join(layout.trash, moved_name(path, claim.epoch))
    still_head(volume, layout, claim)
    volume.make_directories(layout.trash)
    if not volume.move(place, target):
        return False
    try:
        still_head(volume, layout, claim)
    except Exception:
        volume.move(target, place)
        raise
    return True


def put_back(volume: Volume, layout: RunLayout, claim: Claim, path: str) -> bool:
    """Where `path` is gone and lies in the trash: a prepare of an older epoch took it too late, and died before it
    could put it back. Raises Stopped, RecordError, TooManyEntriesError, UnsafeEntryError, VolumeError."""
    place = posixpath.join(layout.directory, path)
    if volume.exists(place):
        return False
    for entry in volume.entries(layout.trash):
        if moved_from(entry.name) == flat_name(path):
            still_head(volume, layout, claim)
            return volume.move(posixpath.join(layout.trash, entry.name), place)
    return False


def empty(volume: Volume, layout: RunLayout, *, spare: Iterable[str], deadline: Deadline) -> list[str]:
    """Remove what lies in the trash, but for the paths in `spare` and what prepare did not put there.

    Returns:
        Why it is not empty: a sentence for each entry that is left.

    Raises:
        TooManyEntriesError, UnsafeEntryError, VolumeError: the trash itself cannot be listed.
    """
    spared = {flat_name(path) for path in spare}
    left = []
    for entry in volume.entries(layout.trash):
        name = moved_from(entry.name)
        if name is None or name in spared:
            continue
        try:
            if not volume.remove_tree(posixpath.join(layout.trash, entry.name), go_on=deadline.is_ahead):
                left.append("there was no time for all of it")
        except (UnsafeEntryError, VolumeError) as error:
            left.append(str(error))
    return left
