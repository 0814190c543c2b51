"""The journal of verdicts: what was judged is recorded while the walk goes on, so that a prepare that was killed goes
on where it was, and damage shows in what was whole before.

It is evidence that spares work; no decision rests on it alone. What cannot be read of it, or written, is said in
`Journal.remarks` and costs another look; it changes no verdict and blocks nobody.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Optional, Union

from sweeprun_protocol.codec import MAX_RECORD_BYTES, RecordError, dump
from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import RunLayout, VerdictName, parse_verdict_name, verdict_key
from sweeprun_protocol.reasons import BlockedReason, Format, Level, RefusalReason, VerdictKind
from sweeprun_protocol.records import Refusal
from sweeprun_protocol.verdicts import MAX_FIRST_BYTES, Verdict

from .errors import TooManyEntriesError, UnsafeEntryError, VolumeError
from .formats import Checked, Contents, Refused
from .identity import identity_of
from .lineage import Candidate, FileFacts
from .operations import Volume
from .records_io import read_record

MAX_READ = 16
"""Records that are read for one question about one checkpoint: the volume may hold any number."""

SURVEY_SECONDS = 900.0
"""How old the verdict of a survey may be, by the volume's clock: a drain that hangs on a lost node lasts for hours, and
what a disk does in that time has no change time."""

_LET_PASS = frozenset({BlockedReason.NOT_WRITABLE, BlockedReason.IO_ERROR})
"""The decision is written next, and says better whether anything can be. That names cannot be created exclusively is no
such error: nothing may be published at all then."""


@dataclass(frozen=True)
class Judge:
    """Who judges, and what it was asked for."""

    epoch: int
    prepare: int
    level: Level
    chosen: Format

    def verdict(
        self,
        candidate: Candidate,
        facts: FileFacts,
        found: Union[Checked, Refused],
        *,
        seconds: float,
        time: float,
        first: bool,
    ) -> Verdict:
        """What is recorded of one look. `first`: digests of files are kept where there are some."""
        verdict = Verdict(
            path=candidate.path,
            format=candidate.format,
            size=facts.size,
            mtime_ns=facts.mtime_ns,
            inode=facts.inode,
            level=self.level,
            chosen=self.chosen,
            epoch=self.epoch,
            prepare=self.prepare,
            time=time,
            bytes=found.bytes_read if isinstance(found, Refused) else found.bytes,
            seconds=seconds,
        )
        if isinstance(found, Refused):
            return replace(verdict, refusal=refusal_of(candidate.path, found), expected=candidate.digest)
        verdict = replace(
            verdict, digest=found.digest, uncovered=found.uncovered, world_size=found.world_size, note=found.note
        )
        if first and found.contents is not None:
            return replace(verdict, algorithm=found.contents.algorithm, files=found.contents.files)
        return verdict


def refusal_of(path: str, refused: Refused) -> Refusal:
    entry = refused.entry[:300] if refused.entry else None
    return Refusal(path, refused.reason, refused.message[:300], entry, refused.offset)


class Journal:
    """The verdicts of one run. Its names are listed once; records are read as they are asked for."""

    def __init__(self, volume: Volume, layout: RunLayout, *, volume_time: Optional[float] = None) -> None:
        """`volume_time`: now, in seconds since 1970 by the volume's clock; None: no verdict of a survey stands."""
        self._volume = volume
        self._layout = layout
        self._volume_time = volume_time
        self.remarks: list[str] = []
        """What could not be read or written, as sentences."""
        self._names: dict[str, list[VerdictName]] = {}
        for name in self._listed():
            self._names.setdefault(name.key, []).append(name)

    def standing(self, judge: Judge, candidate: Candidate, facts: FileFacts) -> Optional[Verdict]:
        """A verdict on this very state of the checkpoint that spares `judge` another look.

        That is a refusal that no later look took back, of whichever epoch; or that it was whole, of this epoch alone:
        what is resumed from is read again. A Fast verdict never stands for a Full one. What a survey found whole must
        be the same files, to the last change time, and not long ago.
        """
        names = [name for name in self._of(candidate, facts) if name.level in (Level.FULL, judge.level)]
        whole = [name for name in names if name.kind is not VerdictKind.REFUSED]
        last = max((name.epoch for name in whole), default=0)
        refused = [name for name in names if name.kind is VerdictKind.REFUSED and name.epoch >= last]
        for verdict in self._read(_newest_first(refused)):
            if _still_refuses(verdict, judge, candidate, facts):
                return verdict
        for verdict in self._read(name for name in whole if name.epoch == judge.epoch):
            fits = verdict.chosen is judge.chosen and _may_be(verdict.digest, candidate.digest)
            if fits and (verdict.identity is None or self._is_the_same(verdict, candidate)):
                return verdict
        return None

    def _is_the_same(self, verdict: Verdict, candidate: Candidate) -> bool:
        """What a survey saw, some seconds ago."""
        recorded = self._volume.facts(self._layout.verdict(verdict.name))
        if recorded is None or self._volume_time is None:
            return False
        if abs(self._volume_time - recorded.mtime_ns / 1e9) > SURVEY_SECONDS:
            return False
        found = identity_of(self._volume, posixpath.join(self._layout.directory, candidate.path))
        return found is not None and found.digest == verdict.identity

    def known(self, candidate: Candidate, facts: FileFacts) -> Optional[Contents]:
        """What it held when it was first read whole. A digest that the candidate brings outweighs the record."""
        first = [name for name in self._of(candidate, facts) if name.kind is VerdictKind.FIRST]
        for verdict in self._read(sorted(first, key=lambda name: name.epoch)):
            if _may_be(verdict.digest, candidate.digest):
                assert verdict.algorithm is not None, "else it would be of another kind"
                return Contents(verdict.algorithm, verdict.files)
            self._remark(f"{self._layout.verdict(verdict.name)} tells of another digest than {candidate.digest}")
        return None

    def newest(self, candidate: Candidate, facts: FileFacts) -> Optional[Verdict]:
        """The last verdict on this state, for people: at whatever level, whoever judged."""
        return next(self._read(_newest_first(self._of(candidate, facts))), None)

    def publish(self, verdict: Verdict) -> None:
        """Raises VolumeError where nothing can be published on this volume; what else goes wrong is a remark."""
        data = dump(verdict.to_dict())
        if len(data) > MAX_FIRST_BYTES:
            left_out = f"the digests of its {len(verdict.files)} files were not recorded: {len(data)} bytes"
            self._remark(f"{verdict.path}: {left_out}")
            note = f"{verdict.note}; {left_out}" if verdict.note else left_out
            verdict = replace(verdict, algorithm=None, files=(), note=note)
            data = dump(verdict.to_dict())
        try:
            self._volume.make_directories(self._layout.verdicts)
            self._volume.publish(self._layout.verdict(verdict.name), data)
        except VolumeError as error:
            if error.reason not in _LET_PASS:
                raise
            self._remark(f"the verdict on {verdict.path} was not recorded: {error.message}")
        except (UnsafeEntryError, FileNotFoundError) as error:
            self._remark(f"the verdict on {verdict.path} was not recorded: {error}")

    def _listed(self) -> list[VerdictName]:
        try:
            entries = self._volume.entries(self._layout.verdicts)
        except (VolumeError, UnsafeEntryError, TooManyEntriesError) as error:
            self._remark(f"earlier verdicts cannot be listed: {error}")
            return []
        names = (parse_verdict_name(entry.name) for entry in entries)
        return [name for name in names if name is not None]

    def _of(self, candidate: Candidate, facts: FileFacts) -> list[VerdictName]:
        key = verdict_key(candidate.format, candidate.path, size=facts.size, mtime_ns=facts.mtime_ns)
        return self._names.get(key, [])

    def _read(self, names: Iterable[VerdictName]) -> Iterator[Verdict]:
        for count, name in enumerate(names):
            if count == MAX_READ:
                self._remark(f"{self._layout.verdicts}: more than {MAX_READ} records on one checkpoint")
                return
            verdict = self._read_one(name)
            if verdict is not None:
                yield verdict

    def _read_one(self, name: VerdictName) -> Optional[Verdict]:
        path = self._layout.verdict(name)
        limit = MAX_FIRST_BYTES if name.kind is VerdictKind.FIRST else MAX_RECORD_BYTES
        try:
            verdict = read_record(self._volume, path, Verdict.from_value, limit=limit)
            if verdict is not None:
                _check_against_itself(verdict, name, path)
        except (RecordError, UnsafeEntryError, VolumeError) as error:
            self._remark(f"a verdict cannot be read: {error}")
            return None
        return verdict

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


def _newest_first(names: Iterable[VerdictName]) -> list[VerdictName]:
    """Of one epoch the refusal first: damage that was seen once outweighs that it was not seen."""
    return sorted(names, key=lambda name: (name.epoch, name.kind is VerdictKind.REFUSED), reverse=True)


def _still_refuses(verdict: Verdict, judge: Judge, candidate: Candidate, facts: FileFacts) -> bool:
    if verdict.refusal is None or verdict.inode != facts.inode:
        return False  # another inode: somebody may have put a good copy back, with its time
    if verdict.refusal.reason is RefusalReason.NOT_RESUMABLE and verdict.chosen is not judge.chosen:
        return False
    return verdict.expected == candidate.digest


def _may_be(one: Optional[str], other: Optional[str]) -> bool:
    return one is None or other is None or one == other


def _check_against_itself(verdict: Verdict, name: VerdictName, path: str) -> None:
    """Raises RecordError: damage in a record must not look like damage in a checkpoint."""
    if verdict.name != name:
        raise RecordError(path, "is named for something else than it holds")
    if verdict.algorithm is not None and Contents(verdict.algorithm, verdict.files).digest != verdict.digest:
        raise RecordError(path, "its digests and the digest over them differ")
