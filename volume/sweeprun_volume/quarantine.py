"""Moving what was refused or abandoned out of the way: only after the decision that says so is durable."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Optional

from sweeprun_protocol.codec import dump
from sweeprun_protocol.layout import ABANDONED, QUARANTINE, RunLayout, parse_step_name
from sweeprun_protocol.records import Decision, Refusal

from .formats.tree import facts_of
from .lineage import FileFacts, Found
from .operations import Volume

VERDICT_SUFFIX = ".verdict.json"
_LONGEST = 160
"""Bytes of a path that a name in quarantine shows; file systems take 255, and ours adds to them."""
_MOVED = re.compile(r"^(.+\.moved-e([0-9]{1,6}))(?:\.verdict\.json)?$", re.DOTALL)


def quarantine(volume: Volume, layout: RunLayout, decision: Decision, seen: Mapping[str, FileFacts]) -> None:
    """Move what the decision refused to quarantine/, each with its verdict beside it. Repeating it changes nothing."""
    for refusal in decision.refused:
        if not _is_old(volume, layout, refusal.path, decision.epoch, seen):
            continue
        volume.make_directories(layout.quarantine)
        target = posixpath.join(layout.quarantine, moved_name(refusal.path, decision.epoch))
        volume.publish(target + VERDICT_SUFFIX, _verdict(decision, refusal))
        volume.move(posixpath.join(layout.directory, refusal.path), target)


def abandon(
    volume: Volume, layout: RunLayout, decision: Decision, found: Iterable[Found], seen: Mapping[str, FileFacts]
) -> None:
    """Move what a restart leaves behind to abandoned/e<epoch>/, whose existence records the restart."""
    place = abandoned_directory(layout, decision.epoch)
    volume.make_directories(place)
    for item in found:
        if _is_old(volume, layout, item.path, decision.epoch, seen):
            source = posixpath.join(layout.directory, item.path)
            volume.move(source, posixpath.join(place, moved_name(item.path, decision.epoch)))


def surplus(volume: Volume, layout: RunLayout, *, keep_last: int, epoch: int) -> list[list[str]]:
    """Entries of quarantine beyond the newest `keep_last`, each as its paths below the run directory.

    An entry is what was refused with its verdict, or what is left of the two. The newest are those that the latest
    epoch moved; among those of one epoch the last by name. What an epoch after `epoch` moved is not looked at, nor is
    what prepare did not put there. Raises TooManyEntriesError, UnsafeEntryError, VolumeError.
    """
    found: dict[tuple[int, str], list[str]] = {}
    for entry in volume.entries(layout.quarantine):
        match = _MOVED.fullmatch(entry.name)
        if match is not None and int(match.group(2)) <= epoch:
            found.setdefault((int(match.group(2)), match.group(1)), []).append(f"{QUARANTINE}/{entry.name}")
    return [found[key] for key in sorted(found, reverse=True)[max(keep_last, 1) :]]


def abandoned_directory(layout: RunLayout, epoch: int) -> str:
    return posixpath.join(layout.abandoned, f"e{epoch}")


def newest_restart(volume: Volume, layout: RunLayout, *, at_most: int) -> Optional[int]:
    """Epoch of the newest restart that left checkpoints behind."""
    names = [entry.name for entry in volume.entries(posixpath.join(layout.directory, ABANDONED))]
    epochs = [int(name[1:]) for name in names if name[:1] == "e" and name[1:].isascii() and name[1:].isdigit()]
    return max((epoch for epoch in epochs if epoch <= at_most), default=None)


def _is_old(volume: Volume, layout: RunLayout, path: str, epoch: int, seen: Mapping[str, FileFacts]) -> bool:
    """Whether it is what the decision judged, and no work of the attempt that the decision let start.

    A twin of a prepare may get here late, when training runs already.
    """
    place = posixpath.join(layout.directory, path)
    if not volume.exists(place):
        return False
    parsed = parse_step_name(posixpath.basename(path))
    if parsed is not None:
        return parsed[1] < epoch
    now, before = facts_of(volume, place), seen.get(path)
    if now is None:
        return True  # no checkpoint of anybody's
    return before is not None and now.same_content(before)


def moved_name(path: str, epoch: int) -> str:
    """One name for a path, and one for each epoch that moves it: nothing in quarantine is ever replaced."""
    return f"{flat_name(path)}.moved-e{epoch}"


def flat_name(path: str) -> str:
    """One name for a path: its end, and where that is not all of it, a digest of the whole before it."""
    name = os.fsencode(path.replace("/", "__"))
    if len(name) <= _LONGEST:
        return os.fsdecode(name)
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return f"{digest}-{name[-_LONGEST:].decode(errors='ignore')}"


def moved_from(name: str) -> Optional[str]:
    """The `flat_name` in a name that `moved_name` made; None for another."""
    match = _MOVED.fullmatch(name)
    return name[: name.rindex(".moved-e")] if match is not None and match.group(1) == name else None


def _verdict(decision: Decision, refusal: Refusal) -> bytes:
    return dump({"epoch": decision.epoch, "prepare": decision.prepare, "verdict": refusal.to_dict()})
