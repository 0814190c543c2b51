"""Files of torch.save: a zip archive of stored entries. Read by its directory and CRCs; nothing is unpickled.

torch.load notices neither a flipped bit in tensor data nor a zeroed page: its reader never checks the CRCs that its
writer puts into the central directory (measured). Archives written with CRC32 switched off carry zeros instead: those
are unknown, not bad.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Callable, Optional

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import MAX_STEP
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.crc import crc32
from sweeprun_volume.errors import UnsafeEntryError
from sweeprun_volume.operations import FILE, Volume

from . import Checked, Context, Recognised, Refused, Sighting
from .chunks import Plan, Span
from .contents import read_contents
from .foreign_json import Cursor
from .pickle_tokens import Value
from .torch_pickle import MAX_PICKLE_BYTES, STEP_KEYS, holds_weights_only, look_into, step_in
from .tree import require_text
from .zip_directory import Member, Source, read_directory

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
STEP_RECORD = "trainer_checkpoint.json"
"""Beside a file whose name has no number, as `trainer_state.pt`: an object with the step under one of STEP_KEYS."""
MAX_STEP_RECORD_BYTES = 64 << 10
MAX_STEP_RECORD_KEYS = 1000

_DIGITS = re.compile(r"[0-9]+")
_VERSION = re.compile(r"-v[0-9]+$")
"""Lightning's ending of a second file for the same step."""


class TorchFormat:
    kind = Format.TORCH

    def recognise(self, sighting: Sighting) -> Optional[Recognised]:
        name = sighting.entry.name
        if sighting.listing is not None or not name.endswith(SUFFIXES):
            return None
        step = step_in_name(name)
        if step is None:
            step = _step_told(sighting.volume, sighting.place) if sighting.entry.kind == FILE else 0
        return Recognised(step)

    def check(self, context: Context, path: str, *, step: int, epoch: int) -> Checked:  # noqa: ARG002
        return check_file(context, path, holds_weights_only)


def check_file(context: Context, path: str, weights_only: Callable[[Value], bool]) -> Checked:
    """A checkpoint that is one file of torch.save, `path` relative to the run directory.

    `weights_only` judges what was saved, by its tokens. In doubt the file counts as resumable.

    Raises Refused, OutOfTimeError, VolumeError.
    """
    place = posixpath.join(context.layout.directory, path)
    require_text(path)
    file = plan_file(context, place, "")
    if context.resumable_only:
        top = _top(context, file)
        if top is not None and weights_only(top):
            raise Refused(
                RefusalReason.NOT_RESUMABLE,
                "it holds weights only, nothing to go on from exactly: passed over, and left where it is (name its "
                "format in checkpoint.format to start from it all the same)",
                bytes_read=file.pickle.size,
            )
    if context.level is Level.FAST:
        note = "the archive's directory was read, contents were not (validation level Fast)"
        return Checked(None, 0, file.plan.size, note)
    contents = read_contents(context, [file.plan])
    return Checked(contents.digest, file.plan.size, file.uncovered, file.note, contents=contents)


@dataclass(frozen=True)
class FilePlan:
    """A file of torch.save whose directory was read."""

    plan: Plan
    """With a span for every entry; without any where the archive carries no CRCs."""
    uncovered: int
    """Bytes that no CRC covers: headers and padding, or all of them."""
    note: str
    """What the CRCs cannot show, as a sentence; else empty."""
    pickle: Member
    """`data.pkl`, to look into."""


def plan_file(context: Context, place: str, name: str) -> FilePlan:
    """Read the archive's directory; no content.

    `place` is the file from the volume's root, `name` the file relative to the checkpoint, or empty where the file is
    the checkpoint: entries are then named without it.

    Raises:
        Refused: no whole archive of torch.save; the entry names file and member.
        VolumeError: I/O errors.
    """
    try:
        with context.volume.open_file(place) as (descriptor, facts):
            members = read_directory(Source(context.volume, descriptor, place, facts.size))
    except FileNotFoundError:
        raise Refused(RefusalReason.FILE_MISSING, "the file vanished before it was read", entry=name or None) from None
    except UnsafeEntryError as error:
        raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error), entry=name or None) from None
    except Refused as refused:
        refused.entry = _entry(name, refused.entry)
        raise
    pickled = pickle_member(members)
    if pickled is None:
        text = "a zip archive without data.pkl: not written by torch.save"
        raise Refused(RefusalReason.UNKNOWN_FORMAT, text, entry=name or None)
    covered = any(member.crc for member in members if member.size)
    ordered = sorted(members, key=lambda item: item.offset) if covered else []
    spans = [Span(_entry(name, item.name) or item.name, item.offset, item.size, item.crc) for item in ordered]
    plan = Plan(place, name or posixpath.basename(place), facts.size, facts.mtime_ns, spans)
    note = "" if covered else "the file carries no CRCs (saved with CRC32 off): damage inside entries would go unseen"
    return FilePlan(plan, facts.size - sum(span.size for span in spans), note, pickled)


def _entry(name: str, member: Optional[str]) -> Optional[str]:
    return ":".join(part for part in (name, member) if part) or None


def step_in_name(name: str) -> Optional[int]:
    """Last whole number of the name without its suffix; None without one that could be a step."""
    stem = _VERSION.sub("", name.rpartition(".")[0] or name)
    numbers = _DIGITS.findall(stem)
    if not numbers or len(numbers[-1]) > 15 or int(numbers[-1]) > MAX_STEP:
        return None
    return int(numbers[-1])


def _step_told(volume: Volume, place: str) -> int:
    """By the file itself, else by the record beside it. 0 where neither says: it is then older than every checkpoint
    that does."""
    inside = _step_inside(volume, place)
    return inside if inside is not None else _step_beside(volume, place) or 0


def _step_inside(volume: Volume, place: str) -> Optional[int]:
    try:
        with volume.open_file(place) as (descriptor, facts):
            source = Source(volume, descriptor, place, facts.size)
            pickled = pickle_member(read_directory(source))
            if pickled is None or pickled.size > MAX_PICKLE_BYTES:
                return None
            data = source.read(pickled.offset, pickled.size)
    except (Refused, UnsafeEntryError, FileNotFoundError):
        return None  # not judged here: whoever is first in line is checked whole
    return step_in_pickle(data)


def _step_beside(volume: Volume, place: str) -> Optional[int]:
    """In the record that scripts leave beside a file that they write under one name. It only puts in order: a record
    that is wrong, or of another save, makes no checkpoint whole."""
    found: dict[str, int] = {}
    try:
        text = volume.read(posixpath.join(posixpath.dirname(place), STEP_RECORD), limit=MAX_STEP_RECORD_BYTES)
        if text is None:
            return None
        cursor = Cursor(STEP_RECORD, text)
        for key in cursor.members(MAX_STEP_RECORD_KEYS):
            if key in STEP_KEYS:
                found[key] = cursor.integer()
            else:
                cursor.skip()
        cursor.end()
    except (Refused, UnsafeEntryError):
        return None
    return next((found[key] for key in STEP_KEYS if 0 <= found.get(key, -1) <= MAX_STEP), None)


def step_in_pickle(data: bytes) -> Optional[int]:
    top = look_into(data)
    return step_in(top) if top is not None else None


def _top(context: Context, file: FilePlan) -> Optional[Value]:
    """None where it is not worth a look: too large, or damaged, which the reading of the contents will tell."""
    plan, member = file.plan, file.pickle
    if member.size > MAX_PICKLE_BYTES:
        return None
    try:
        with context.volume.open_file(plan.path) as (descriptor, _):
            data = Source(context.volume, descriptor, plan.path, plan.size).read(member.offset, member.size)
    except (Refused, UnsafeEntryError, FileNotFoundError):
        return None
    if plan.spans and crc32(memoryview(data), 0) != member.crc:
        return None
    return look_into(data)


def pickle_member(members: Sequence[Member]) -> Optional[Member]:
    return next((member for member in members if member.name.rpartition("/")[2] == "data.pkl"), None)
