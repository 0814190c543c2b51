"""The directory of a zip archive of stored entries, zip64 included, read strictly: every byte has one owner at most."""

from __future__ import annotations

import struct
from typing import NoReturn

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.reasons import RefusalReason
from sweeprun_volume.formats import Refused
from sweeprun_volume.operations import Volume

MAX_ENTRIES = 262_144
MAX_DIRECTORY_BYTES = 64 << 20

_LOCAL = b"PK\x03\x04"
_CENTRAL = b"PK\x01\x02"
_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_MAGIC = b"PK\x06\x06"
_LOCATOR = struct.Struct("<4sLQL")
_LOCATOR_MAGIC = b"PK\x06\x07"
_CENTRAL_HEADER = struct.Struct("<4s6H3L5H2L")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_ABSENT32 = 0xFFFFFFFF
_ENCRYPTED = 0x1
_TAIL = 1 << 18
"""Bytes that are searched for an end record that is not at the end."""


@dataclass(frozen=True)
class Source:
    volume: Volume
    descriptor: int
    path: str
    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Raises Refused where the file ends before."""
        if offset < 0 or offset + size > self.size:
            raise Refused(RefusalReason.TRUNCATED, f"byte {offset + size} is needed, the file has {self.size}")
        buffer = memoryview(bytearray(size))
        done = 0
        while done < size:
            count = self.volume.read_at(self.descriptor, buffer[done:], offset + done, self.path)
            if count == 0:
                raise Refused(RefusalReason.TRUNCATED, f"the file ended at byte {offset + done} while it was read")
            done += count
        return bytes(buffer)


@dataclass(frozen=True)
class Member:
    name: str
    crc: int
    size: int
    header: int
    """Offset of the local header."""
    offset: int
    """Offset of the data."""


def read_directory(source: Source) -> list[Member]:
    """Entries of the archive. Raises Refused where it is truncated, no zip, or contradicts itself."""
    count, start, size, end = _locate(source)
    if count > MAX_ENTRIES or size > MAX_DIRECTORY_BYTES:
        raise Refused(RefusalReason.LIMIT_EXCEEDED, f"{count} entries in a directory of {size} bytes")
    if start + size != end:
        raise Refused(RefusalReason.STRUCTURE, "the archive's directory does not end where its end record begins")
    members = _members(source, source.read(start, size), count)
    _check_places(members, start)
    return members


def first_entry(source: Source, ending: str, most: int) -> bytes:
    """Up to `most` bytes of the archive's first entry, or of what follows it, by its local header alone; empty where
    its name does not end so. Raises Refused where there is no header."""
    local = _LOCAL_HEADER.unpack(source.read(0, _LOCAL_HEADER.size))
    if local[0] != _LOCAL:
        raise Refused(RefusalReason.UNKNOWN_FORMAT, "not a zip archive")
    at = _LOCAL_HEADER.size + local[9]
    if not source.read(_LOCAL_HEADER.size, local[9]).endswith(ending.encode()):
        return b""
    at += local[10]
    return source.read(at, max(0, min(most, source.size - at)))


def _locate(source: Source) -> tuple[int, int, int, int]:
    """(entries, directory's offset, its size, offset of the first end record)."""
    head = source.read(0, min(4, source.size))
    if head != _LOCAL:
        reason = RefusalReason.TRUNCATED if source.size < _END.size else RefusalReason.UNKNOWN_FORMAT
        raise Refused(reason, "not a zip archive: empty, cut off, or written by torch.save's format before 1.6")
    at = source.size - _END.size
    fields = _END.unpack(source.read(at, _END.size))
    if fields[0] != _END_MAGIC or fields[7] != 0:
        _refuse_end(source)
    if fields[1] or fields[2] or fields[3] != fields[4]:
        raise _several_parts()
    count, size, start = fields[4], fields[5], fields[6]
    if at >= _LOCATOR.size and _END64.size <= at:
        locator = _LOCATOR.unpack(source.read(at - _LOCATOR.size, _LOCATOR.size))
        if locator[0] == _LOCATOR_MAGIC:
            found = _locate64(source, locator[2], at - _LOCATOR.size)
            _check_agreement((count, start, size), found)
            return found
    return count, start, size, at


def _several_parts() -> Refused:
    """torch.load, whose reader knows one part only, would not read it either."""
    return Refused(RefusalReason.STRUCTURE, "the archive's end says that it has several parts")


def _check_agreement(small: tuple[int, int, int], large: tuple[int, int, int, int]) -> None:
    """The end record of 32 bits repeats what fits into it, or says that it does not."""
    for value, wide, absent in zip(small, large, (0xFFFF, _ABSENT32, _ABSENT32)):
        if value not in (wide, absent):
            raise Refused(RefusalReason.STRUCTURE, "the archive's two end records contradict each other")


def _refuse_end(source: Source) -> NoReturn:
    tail = source.read(max(0, source.size - _TAIL), min(_TAIL, source.size))
    at = tail.rfind(_END_MAGIC)
    offset = source.size - len(tail) + at + _END.size
    if at < 0 or offset >= source.size:
        raise Refused(RefusalReason.TRUNCATED, "the file does not end with a zip end record: it was cut off")
    raise Refused(
        RefusalReason.STRUCTURE, f"the archive ends at byte {offset} of {source.size}: something follows", offset=offset
    )


def _locate64(source: Source, at: int, expected_end: int) -> tuple[int, int, int, int]:
    fields = _END64.unpack(source.read(at, _END64.size))
    if fields[0] != _END64_MAGIC or at + fields[1] + 12 != expected_end:
        raise Refused(RefusalReason.STRUCTURE, "the zip64 end record is not where its locator says")
    if fields[4] or fields[5] or fields[6] != fields[7]:
        raise _several_parts()
    return fields[7], fields[9], fields[8], at


def _members(source: Source, directory: bytes, count: int) -> list[Member]:
    members: list[Member] = []
    at = 0
    while at < len(directory):
        if at + _CENTRAL_HEADER.size > len(directory) or directory[at : at + 4] != _CENTRAL:
            raise Refused(RefusalReason.STRUCTURE, f"the archive's directory is damaged at its byte {at}")
        fields = _CENTRAL_HEADER.unpack_from(directory, at)
        name_end = at + _CENTRAL_HEADER.size + fields[10]
        extra_end = name_end + fields[11]
        raw = directory[at + _CENTRAL_HEADER.size : name_end]
        members.append(_member(source, raw, fields, directory[name_end:extra_end]))
        at = extra_end + fields[12]
    if len(members) != count:
        raise Refused(RefusalReason.STRUCTURE, f"{len(members)} entries in the directory, {count} announced")
    return members


def _member(source: Source, raw: bytes, fields: tuple[int, ...], extra: bytes) -> Member:
    name = raw.decode("utf-8", "replace")
    flags, method, crc, packed, size, header = fields[3], fields[4], fields[7], fields[8], fields[9], fields[16]
    wide = [value for value in (size, packed, header) if value == _ABSENT32]
    if wide:
        values = _zip64(extra, len(wide), name)
        size = values.pop(0) if size == _ABSENT32 else size
        packed = values.pop(0) if packed == _ABSENT32 else packed
        header = values.pop(0) if header == _ABSENT32 else header
    if method != 0 or packed != size or flags & _ENCRYPTED:
        raise Refused(RefusalReason.STRUCTURE, "an entry is compressed or encrypted, torch.save stores", entry=name)
    found = source.read(header, _LOCAL_HEADER.size + len(raw))
    local = _LOCAL_HEADER.unpack_from(found)
    if local[0] != _LOCAL:
        raise Refused(RefusalReason.STRUCTURE, f"no local header at byte {header}", entry=name, offset=header)
    if local[9] != len(raw) or found[_LOCAL_HEADER.size :] != raw:
        raise Refused(RefusalReason.STRUCTURE, "its header has another name than the directory", entry=name)
    return Member(name, crc, size, header, header + _LOCAL_HEADER.size + local[9] + local[10])


def _zip64(extra: bytes, wanted: int, name: str) -> list[int]:
    at = 0
    while at + 4 <= len(extra):
        tag, size = struct.unpack_from("<2H", extra, at)
        if tag == 1 and size >= 8 * wanted and at + 4 + 8 * wanted <= len(extra):
            return list(struct.unpack_from(f"<{wanted}Q", extra, at + 4))
        at += 4 + size
    raise Refused(RefusalReason.STRUCTURE, "an entry's zip64 sizes are missing", entry=name)


def _check_places(members: list[Member], start: int) -> None:
    """No entry reaches into another or into the directory; names are used once."""
    end = 0
    for member in sorted(members, key=lambda item: item.header):
        if member.header < end:
            raise Refused(RefusalReason.STRUCTURE, "entries overlap", entry=member.name, offset=member.header)
        end = member.offset + member.size
        if end > start:
            raise Refused(RefusalReason.STRUCTURE, "an entry reaches into the directory", entry=member.name)
    if len({member.name for member in members}) != len(members):
        raise Refused(RefusalReason.STRUCTURE, "two entries have the same name")
