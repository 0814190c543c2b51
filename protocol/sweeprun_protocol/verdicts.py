"""What one look at a checkpoint found, as the volume keeps it: evidence, never a decision."""

from __future__ import annotations

from typing import Any, Optional

from .codec import Fields, as_dicts, plain
from .frozen import dataclass
from .layout import MAX_EPOCH, VerdictName, verdict_key
from .manifest import MAX_FILE_BYTES, ManifestFile, read_algorithm, read_files
from .reasons import Format, Level, VerdictKind
from .records import Refusal, read_digest, read_relative, read_whole

MAX_FIRST_BYTES = 16 << 20
"""Of a record with digests of files: room for about 30 TB in one file, or 15 TB in 65,536 of them. Larger ones are
published without the digests."""
MAX_NOTE = 300


@dataclass(frozen=True)
class Verdict:
    """A record in `verdicts/`: one checkpoint, as one prepare found it in one state. Never changed."""

    path: str
    """Relative to the run directory."""
    format: Format
    size: int
    """Bytes of all its files; with `mtime_ns` it tells whether somebody wrote the checkpoint again."""
    mtime_ns: int
    """The newest of its files."""
    inode: int
    level: Level
    chosen: Format
    """What the prepare was asked for: under Auto weights alone are passed over, under the word of a user they are not.
    """
    epoch: int
    prepare: int
    time: float
    """Seconds since 1970 UTC, of the judge's clock: for people, never compared."""
    bytes: int
    """Bytes that were read."""
    seconds: float
    refusal: Optional[Refusal] = None
    """Absent: it was whole."""
    expected: Optional[str] = None
    """Digest that the refusal went by; absent where what lies on the volume was enough."""
    digest: Optional[str] = None
    uncovered: int = 0
    """Bytes in which the format alone could not show damage."""
    world_size: Optional[int] = None
    note: str = ""
    identity: Optional[str] = None
    """Of a survey, whose prepare is yet to come: digest over path, size, times and inode of every file it read."""
    algorithm: Optional[str] = None
    """Of the digests of `files`; absent where they are not recorded."""
    files: tuple[ManifestFile, ...] = ()

    @property
    def kind(self) -> VerdictKind:
        if self.refusal is not None:
            return VerdictKind.REFUSED
        return VerdictKind.WHOLE if self.algorithm is None else VerdictKind.FIRST

    @property
    def name(self) -> VerdictName:
        key = verdict_key(self.format, self.path, size=self.size, mtime_ns=self.mtime_ns)
        return VerdictName(key, self.epoch, self.level, self.kind)

    def to_dict(self) -> dict[str, Any]:
        return plain(
            {
                "path": self.path,
                "format": str(self.format),
                "size": self.size,
                # beyond 2**53, where not every JSON reader keeps integers: text
                "mtimeNs": str(self.mtime_ns),
                "inode": str(self.inode),
                "level": str(self.level),
                "chosen": str(self.chosen),
                "epoch": self.epoch,
                "prepare": self.prepare,
                "time": self.time,
                "bytes": self.bytes,
                "seconds": self.seconds,
                "refusal": self.refusal.to_dict() if self.refusal is not None else None,
                "expected": self.expected,
                "digest": self.digest,
                "uncovered": self.uncovered,
                "worldSize": self.world_size,
                "note": self.note[:MAX_NOTE],
                "identity": self.identity,
                "algorithm": self.algorithm,
                "files": as_dicts(self.files) if self.algorithm is not None else None,
            }
        )

    @staticmethod
    def from_value(value: Any, where: str) -> Verdict:
        fields = Fields(value, where)
        algorithm = fields.optional("algorithm", lambda name: read_algorithm(fields, name))
        verdict = Verdict(
            path=read_relative(fields, "path"),
            format=fields.choice("format", Format),
            size=fields.integer("size", most=MAX_FILE_BYTES),
            mtime_ns=read_whole(fields, "mtimeNs"),
            inode=read_whole(fields, "inode"),
            level=fields.choice("level", Level),
            chosen=fields.choice("chosen", Format),
            epoch=fields.integer("epoch", least=1, most=MAX_EPOCH),
            prepare=fields.integer("prepare"),
            time=fields.number("time"),
            bytes=fields.integer("bytes"),
            seconds=fields.number("seconds"),
            refusal=fields.optional("refusal", lambda name: fields.record(name, Refusal.from_value)),
            expected=fields.optional("expected", read_digest(fields)),
            digest=fields.optional("digest", read_digest(fields)),
            uncovered=fields.integer("uncovered", most=MAX_FILE_BYTES),
            world_size=fields.optional("worldSize", lambda name: fields.integer(name, least=1, most=1 << 20)),
            note=fields.text("note", most=MAX_NOTE),
            identity=fields.optional("identity", read_digest(fields)),
            algorithm=algorithm,
            files=read_files(fields) if algorithm is not None else (),
        )
        if verdict.refusal is not None and verdict.identity is not None:
            fields.fail("identity", "stands beside a refusal: a survey records what is whole")
        if verdict.refusal is not None and (verdict.refusal.path != verdict.path or algorithm is not None):
            fields.fail("refusal", "is that of another path, or stands beside digests")
        return verdict
