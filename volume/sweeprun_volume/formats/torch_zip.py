"""Files of torch.save: a zip archive of stored entries. Read by its directory and CRCs; nothing is unpickled.

torch.load notices neither a flipped bit in tensor data nor a zeroed page: its reader never checks the CRCs that its
writer puts into the central directory (measured). Archives written with CRC32 switched off carry zeros instead: those
are unknown, not bad.
"""

from __future__ import annotations

import io
import pickletools
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from sweeprun_protocol.layout import MAX_STEP
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.errors import UnsafeEntryError
from sweeprun_volume.operations import FILE, Volume

from . import Checked, Context, Recognised, Refused, Sighting
from .contents import Plan, Span, read_contents
from .zip_directory import Member, Source, read_directory

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
MAX_PICKLE_BYTES = 16 << 20
"""A pickle larger than this is not searched for the step."""

_DIGITS = re.compile(r"[0-9]+")
_VERSION = re.compile(r"-v[0-9]+$")
"""Lightning's ending of a second file for the same step."""
_STEP_KEYS = ("step", "global_step", "epoch")
_INTEGER_OPCODES = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG"})
_TEXT_OPCODES = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_BETWEEN = frozenset({"MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"})


class TorchFormat:
    kind = Format.TORCH

    def recognise(self, sighting: Sighting) -> Optional[Recognised]:
        name = sighting.entry.name
        if sighting.listing is not None or not name.endswith(SUFFIXES):
            return None
        step = step_in_name(name)
        if step is None:
            step = _step_inside(sighting.volume, sighting.place) if sighting.entry.kind == FILE else 0
        return Recognised(step)

    def check(self, context: Context, path: str, *, step: int, epoch: int) -> Checked:  # noqa: ARG002
        place = posixpath.join(context.layout.directory, path)
        try:
            path.encode()
        except UnicodeEncodeError:
            raise Refused(RefusalReason.STRUCTURE, "its name is no UTF-8: no pod could be told of it") from None
        file = plan_file(context, place, "")
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


def step_in_pickle(data: bytes) -> Optional[int]:
    """First integer under a key that names the step, by the pickle's opcodes; nothing is built or executed."""
    steps: dict[str, int] = {}
    key: Optional[str] = None
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
            if opcode.name in _BETWEEN:
                continue
            # type, not isinstance: protocol 0 writes True as an integer
            number = argument if opcode.name in _INTEGER_OPCODES and type(argument) is int else None
            if key is not None and number is not None and 0 <= number <= MAX_STEP:
                steps.setdefault(key, number)
            named = opcode.name in _TEXT_OPCODES and argument in _STEP_KEYS
            key = str(argument) if named else None
    except ValueError:
        return None  # damaged: the CRC of this entry is what refuses the file
    return next((steps[name] for name in _STEP_KEYS if name in steps), None)


def _step_inside(volume: Volume, place: str) -> int:
    """0 where the file does not say: it is then older than every checkpoint that does."""
    try:
        with volume.open_file(place) as (descriptor, facts):
            source = Source(volume, descriptor, place, facts.size)
            pickled = pickle_member(read_directory(source))
            if pickled is None or pickled.size > MAX_PICKLE_BYTES:
                return 0
            return step_in_pickle(source.read(pickled.offset, pickled.size)) or 0
    except (Refused, UnsafeEntryError, FileNotFoundError):
        return 0  # not judged here: whoever is first in line is checked whole


def pickle_member(members: Sequence[Member]) -> Optional[Member]:
    return next((member for member in members if member.name.rpartition("/")[2] == "data.pkl"), None)
