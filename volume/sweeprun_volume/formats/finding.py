"""Checkpoints below a directory: every entry is shown to every format once."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Sequence
from typing import Optional

from sweeprun_protocol.layout import RunLayout, parse_step_name
from sweeprun_protocol.reasons import Format
from sweeprun_volume.errors import TooManyEntriesError, UnsafeEntryError
from sweeprun_volume.lineage import Found
from sweeprun_volume.operations import DIRECTORY, LINK, Entry, Volume

from . import CheckpointFormat, Sighting, formats_of
from .tree import facts_of

MAX_FOUND = 20_000
"""Entries below a checkpoint directory that are looked at."""
MAX_PATH = 1024
"""As records and reports carry it: what is not ASCII counts as its escape."""
MAX_DEPTH = 8

_NO_CHECKPOINT = re.compile(r"tmp-checkpoint-[0-9]+|training_args\.bin")
"""Of the Trainer of transformers: where it wrote a checkpoint before it renamed it, whose parts would pass for files of
torch.save each by itself; and its arguments, which lie beside its checkpoints in a file of torch.save."""


def find_checkpoints(volume: Volume, layout: RunLayout, directory: str, chosen: Format) -> list[Found]:
    """What `chosen` recognises below `directory`, which is relative to the run directory. The parts of a checkpoint are
    not looked at; links are passed over, as `last.ckpt` may be one, but for a link in the place of one of ours.

    Raises TooManyEntriesError, UnsafeEntryError (a path that no record could carry), VolumeError.
    """
    formats = formats_of(chosen)
    found: list[Found] = []
    pending = [(directory, 1)]
    count = 0
    while pending:
        below, depth = pending.pop()
        for entry in volume.entries(posixpath.join(layout.directory, below)):
            count += 1
            if count > MAX_FOUND:
                raise TooManyEntriesError(directory, MAX_FOUND)
            if entry.name.startswith(".") or _NO_CHECKPOINT.fullmatch(entry.name):
                continue
            if entry.kind == LINK and parse_step_name(entry.name) is None:
                continue
            path = posixpath.join(below, entry.name)
            place = posixpath.join(layout.directory, path)
            item = recognise(volume, path, place, entry, formats, own=below == directory)
            if item is not None:
                found.append(item)
            elif entry.kind == DIRECTORY and depth < MAX_DEPTH and parse_step_name(entry.name) is None:
                pending.append((path, depth + 1))
    return found


def recognise(
    volume: Volume, path: str, place: str, entry: Entry, formats: Sequence[CheckpointFormat], *, own: bool
) -> Optional[Found]:
    """The entry at `place`, from the volume's root, where that is a checkpoint; `path` is what its record would say.

    `own`: our own format lies directly in the checkpoint directory and nowhere else; a copy below is no commit.
    Raises TooManyEntriesError, UnsafeEntryError, VolumeError.
    """
    listing = volume.entries(place) if entry.kind == DIRECTORY and parse_step_name(entry.name) is None else None
    sighting = Sighting(volume, place, entry, listing)
    for candidate in formats:
        if candidate.kind is Format.SWEEPRUN and not own:
            continue
        recognised = candidate.recognise(sighting)
        if recognised is None:
            continue
        if len(json.dumps(path)) > MAX_PATH:
            raise UnsafeEntryError(path, f"a checkpoint's path has at most {MAX_PATH} characters: move it away")
        facts = None if candidate.kind is Format.SWEEPRUN else facts_of(volume, place)
        return Found(candidate.kind, path, recognised.step, recognised.epoch, facts)
    return None
