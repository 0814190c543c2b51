"""Files of torch.save: a zip archive of stored entries. Read by its directory and CRCs; nothing is unpickled.

torch.load notices neither a flipped bit in tensor data nor a zeroed page: its reader never checks the CRCs that its
writer puts into the central directory (measured). Archives written with CRC32 switched off carry zeros instead: those
are unknown, not bad.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickletools
import posixpath
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from sweeprun_protocol.layout import MAX_STEP, RunLayout, parse_step_name
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.errors import TooManyEntriesError, UnsafeEntryError
from sweeprun_volume.formats import Checked, Context, Refused
from sweeprun_volume.formats.zip_directory import Member, Source, read_directory
from sweeprun_volume.hashing import READ_BYTES
from sweeprun_volume.lineage import FileFacts, Found
from sweeprun_volume.operations import DIRECTORY, FILE, LINK, Facts, Volume

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
MAX_FOUND = 20_000
MAX_PATH = 1024
"""As records and reports carry it: what is not ASCII counts as its escape."""
MAX_DEPTH = 8
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
    def find(self, volume: Volume, layout: RunLayout, directory: str) -> list[Found]:
        found: list[Found] = []
        for path, kind in _walk(volume, layout, directory):
            place = posixpath.join(layout.directory, path)
            facts = volume.facts(place)
            if facts is None:
                continue
            if len(json.dumps(path)) > MAX_PATH:
                raise UnsafeEntryError(path, f"a checkpoint's path has at most {MAX_PATH} characters: move it away")
            step = step_in_name(posixpath.basename(path))
            if step is None:
                step = _step_inside(volume, place) if kind == FILE else 0
            known = FileFacts(facts.size, facts.mtime_ns, facts.inode) if kind == FILE else None
            found.append(Found(Format.TORCH, path, step, None, known))
        return found

    def check(self, context: Context, path: str, *, step: int, epoch: int) -> Checked:  # noqa: ARG002
        place = posixpath.join(context.layout.directory, path)
        try:
            path.encode()
        except UnicodeEncodeError:
            raise Refused(RefusalReason.STRUCTURE, "its name is no UTF-8: no pod could be told of it") from None
        try:
            with context.volume.open_file(place) as (descriptor, facts):
                checked = _check(context, Source(context.volume, descriptor, place, facts.size), path)
        except FileNotFoundError:
            raise Refused(RefusalReason.FILE_MISSING, "the file vanished before it was read") from None
        except UnsafeEntryError as error:
            raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error)) from None
        if _differs(context.volume.facts(place), facts):
            raise Refused(RefusalReason.CHANGED, "the file changed while it was read: somebody still writes it")
        return checked


def foreign_digest(path: str, size: int, content: str) -> str:
    """SHA-256 over the sorted lines `path NUL size NUL sha256 LF`; here one file makes the checkpoint."""
    return "sha256:" + hashlib.sha256(f"{path}\0{size}\0{content}\n".encode()).hexdigest()


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


def _walk(volume: Volume, layout: RunLayout, directory: str) -> Iterator[tuple[str, str]]:
    """(path, kind) of what could be a file of torch.save; links are passed over, as `last.ckpt` may be one."""
    pending = [(directory, 1)]
    count = 0
    while pending:
        below, depth = pending.pop()
        for entry in volume.entries(posixpath.join(layout.directory, below)):
            path = posixpath.join(below, entry.name)
            count += 1
            if count > MAX_FOUND:
                raise TooManyEntriesError(directory, MAX_FOUND)
            if entry.name.startswith(".") or entry.kind == LINK:
                continue
            if entry.kind == DIRECTORY:
                if depth < MAX_DEPTH and parse_step_name(entry.name) is None:
                    pending.append((path, depth + 1))
            elif entry.name.endswith(SUFFIXES):
                yield path, entry.kind


def _step_inside(volume: Volume, place: str) -> int:
    """0 where the file does not say: it is then older than every checkpoint that does."""
    try:
        with volume.open_file(place) as (descriptor, facts):
            source = Source(volume, descriptor, place, facts.size)
            pickled = _pickle_member(read_directory(source))
            if pickled is None or pickled.size > MAX_PICKLE_BYTES:
                return 0
            return step_in_pickle(source.read(pickled.offset, pickled.size)) or 0
    except (Refused, UnsafeEntryError, FileNotFoundError):
        return 0  # not judged here: whoever is first in line is checked whole


def _pickle_member(members: list[Member]) -> Optional[Member]:
    return next((member for member in members if member.name.rpartition("/")[2] == "data.pkl"), None)


def _check(context: Context, source: Source, path: str) -> Checked:
    members = read_directory(source)
    if _pickle_member(members) is None:
        raise Refused(RefusalReason.UNKNOWN_FORMAT, "a zip archive without data.pkl: not written by torch.save")
    if context.level is Level.FAST:
        return Checked(None, 0, "the archive's directory was read, contents were not (validation level Fast)")
    covered = any(member.crc for member in members if member.size)
    content = _read_whole(context, source, members, check_crc=covered)
    note = "" if covered else "the file carries no CRCs (saved with CRC32 off): damage inside entries would go unseen"
    return Checked(foreign_digest(path, source.size, content), source.size, note)


@dataclass
class _Progress:
    done: int = 0


def _read_whole(context: Context, source: Source, members: list[Member], *, check_crc: bool) -> str:
    """One pass over the file: SHA-256 of all of it, CRC-32 of each entry. Returns the SHA-256."""
    whole = hashlib.sha256()
    progress = _Progress()
    buffer = memoryview(bytearray(READ_BYTES))

    def take(end: int, crc: int) -> int:
        while progress.done < end:
            context.deadline.check()
            part = buffer[: end - progress.done]
            count = source.volume.read_at(source.descriptor, part, progress.done, source.path)
            if count == 0:
                raise Refused(RefusalReason.TRUNCATED, f"the file ended at byte {progress.done} while it was read")
            whole.update(buffer[:count])
            crc = zlib.crc32(buffer[:count], crc)
            progress.done += count
        return crc

    for member in sorted(members, key=lambda item: item.offset):
        take(member.offset, 0)
        crc = take(member.offset + member.size, 0)
        if check_crc and crc != member.crc:
            raise Refused(
                RefusalReason.CRC_MISMATCH,
                f"entry {member.name}: CRC-32 is {crc:08x}, the archive says {member.crc:08x}",
                entry=member.name,
                offset=member.offset,
                bytes_read=progress.done,
            )
    take(source.size, 0)
    return whole.hexdigest()


def _differs(now: Optional[Facts], before: Facts) -> bool:
    return now is None or (now.size, now.mtime_ns) != (before.size, before.mtime_ns)
