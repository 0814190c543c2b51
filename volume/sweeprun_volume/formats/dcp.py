"""Directories of torch.distributed.checkpoint (DCP), judged by their metadata, sizes and CRCs; nothing is unpickled.

Ranks write `__<rank>_<n>.distcp` under their final names; the coordinator then renames `.metadata.tmp` to `.metadata`.
Without collectives each rank writes `__<rank>.metadata`. The metadata says that all ranks reported success once, not
that the bytes are there now: dcp.load notices neither a flipped bit in tensor data nor a zeroed page (measured). A
shard is a sequence of items, each a little archive of torch.save with CRCs of its own.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn, Optional

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.errors import UnsafeEntryError
from sweeprun_volume.operations import DIRECTORY, Facts

from . import Checked, Context, Recognised, Refused, Sighting
from .chunks import Plan
from .contents import read_contents
from .dcp_items import ItemSpans, read_items
from .dcp_metadata import MAX_ITEMS, read_metadata
from .dcp_saved import Interval, Intervals, Saved, shown
from .dcp_tiling import check_tiling
from .pickle_tokens import Limits
from .torch_zip import SUFFIXES, plan_file, step_in_name
from .tree import require_text, walk_files
from .zip_directory import Source

MAX_METADATA_BYTES = 256 << 20
"""Of all metadata files of a checkpoint together."""

METADATA = ".metadata"
SHARD_SUFFIX = ".distcp"
LIGHTNING_METADATA = "meta.pt"

_SHARD = re.compile(r"__([0-9]{1,9})_[0-9]{1,9}\.distcp")
_RANK_METADATA = re.compile(r"__([0-9]{1,9})\.metadata")
_UNFINISHED = re.compile(r"(?:__[0-9]{1,9})?\.metadata\.tmp")
_LIGHTNING = re.compile(r"epoch=[0-9]+-step=[0-9]+.*\.ckpt")
_STATE = re.compile(
    r"(?<![a-z])(?:optim|step|sched|lr_|epoch|iteration|exp_avg|moment|adam|data_?loader|sampler|rng|random|scaler|train)",
    re.IGNORECASE,
)
"""In the key of what is more than weights."""


class DcpFormat:
    kind = Format.DCP

    def recognise(self, sighting: Sighting) -> Optional[Recognised]:
        if not any(_is_part(entry.name) for entry in sighting.listing or () if entry.kind != DIRECTORY):
            return None
        name = sighting.entry.name
        step = step_in_name(name if name.endswith(SUFFIXES) else name + ".")  # of a directory nothing is a suffix
        return Recognised(step or 0)

    def check(self, context: Context, path: str, *, step: int, epoch: int) -> Checked:  # noqa: ARG002
        require_text(path)
        planned = plan_directory(context, posixpath.join(context.layout.directory, path), "")
        if _LIGHTNING.fullmatch(posixpath.basename(path)) and LIGHTNING_METADATA not in planned.names:
            text = f"no {LIGHTNING_METADATA}, which Lightning writes last: the save was interrupted"
            raise Refused(RefusalReason.FILE_MISSING, text, entry=LIGHTNING_METADATA)
        if context.resumable_only and not planned.resumable:
            text = "its keys name tensors of a model only, no optimizer and no step"
            raise Refused(RefusalReason.NOT_RESUMABLE, text)
        if context.level is Level.FAST:
            note = "metadata and sizes were compared, contents were not (validation level Fast)"
            return Checked(None, 0, sum(plan.size for plan in planned.plans), note, planned.world_size)
        contents = read_contents(context, planned.plans)
        size = sum(plan.size for plan in planned.plans)
        return Checked(contents.digest, size, planned.uncovered, planned.note, planned.world_size, contents)


@dataclass(frozen=True)
class Planned:
    """A directory whose structure is whole; its contents are to be read."""

    plans: tuple[Plan, ...]
    """One for each file, with the CRCs of the items; without them at level Fast."""
    uncovered: int
    """Bytes that no CRC covers."""
    note: str
    world_size: Optional[int]
    """Ranks that wrote it, by the names of its files."""
    resumable: bool
    """False: its keys are those of weights only. In doubt True."""

    @property
    def names(self) -> frozenset[str]:
        return frozenset(plan.name for plan in self.plans)


def plan_directory(context: Context, place: str, prefix: str) -> Planned:
    """Judge the structure of a directory: it was committed, and every byte that its metadata names is there.

    `place` is the directory from the volume's root; `prefix` stands before the names of its files in plans, messages
    and entries: "" where it is the checkpoint, `optimizer_0/` where it is a part of one.

    Raises:
        Refused: NO_MANIFEST (never committed), FILE_MISSING, FILE_EXTRA (a shard of another save), TRUNCATED,
            SIZE_MISMATCH, STRUCTURE, LIMIT_EXCEEDED, NOT_A_REGULAR_FILE; with file and offset.
        OutOfTimeError, VolumeError.
    """
    directory = _Directory(context, place, prefix, dict(walk_files(context.volume, place)))
    try:
        return directory.plan()
    except FileNotFoundError:
        raise Refused(RefusalReason.CHANGED, "a file vanished while it was looked at") from None
    except UnsafeEntryError as error:
        raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error), entry=posixpath.basename(error.path)) from None


def _is_part(name: str) -> bool:
    return name == METADATA or any(pattern.fullmatch(name) for pattern in (_SHARD, _RANK_METADATA, _UNFINISHED))


class _Directory:
    def __init__(self, context: Context, place: str, prefix: str, files: Mapping[str, Facts]) -> None:
        self._context = context
        self._place = place
        self._prefix = prefix
        self._files = files

    def plan(self) -> Planned:
        for name in sorted(self._files):
            require_text(name)
        saves = self._read_saves(self._metadata_names())
        check_tiling(saves)
        files = self._check_files(saves)
        notes: list[str] = []
        plans = tuple(self._plan_file(name, files.get(name), notes) for name in sorted(self._files))
        covered = sum(span.size for plan in plans for span in plan.spans)
        ranks = self._ranks(_SHARD)
        return Planned(
            plans=plans,
            uncovered=sum(plan.size for plan in plans) - covered,
            note="; ".join(notes),
            world_size=len(ranks) or None,
            resumable=self._is_resumable(saves),
        )

    def _ranks(self, pattern: re.Pattern[str]) -> set[int]:
        return {int(match.group(1)) for match in map(pattern.fullmatch, self._files) if match is not None}

    def _metadata_names(self) -> list[str]:
        unfinished = next((name for name in sorted(self._files) if _UNFINISHED.fullmatch(name)), None)
        if unfinished is not None:
            self._refuse(RefusalReason.NO_MANIFEST, "a save was begun here and never ended", unfinished)
        if METADATA in self._files:
            return [METADATA]
        ranks = self._ranks(_RANK_METADATA)
        if not ranks:
            self._refuse(RefusalReason.NO_MANIFEST, "missing: the save was never committed", METADATA)
        for rank in range(max(ranks | self._ranks(_SHARD)) + 1):
            if rank not in ranks:
                self._refuse(RefusalReason.NO_MANIFEST, "missing: this rank never ended its save", f"__{rank}.metadata")
        return [f"__{rank}.metadata" for rank in sorted(ranks)]

    def _read_saves(self, names: Sequence[str]) -> list[Saved]:
        limits = Limits(bytes=MAX_METADATA_BYTES, beat=self._context.deadline.check)
        if sum(self._files[name].size for name in names) > limits.bytes:
            self._refuse(RefusalReason.LIMIT_EXCEEDED, f"metadata of more than {limits.bytes} bytes", names[0])
        saves = []
        for name in names:
            path = posixpath.join(self._place, name)
            with self._context.volume.open_file(path) as (descriptor, facts):
                if facts.size != self._files[name].size:
                    self._refuse(RefusalReason.CHANGED, "changed while it was looked at", name)
                source = Source(self._context.volume, descriptor, path, facts.size)
                try:
                    saves.append(read_metadata(source, self._prefix + name, limits))
                finally:  # it is read twice: what contradicts itself may be two
                    self._require_unchanged(name)
            if sum(saved.items for saved in saves) > MAX_ITEMS:
                self._refuse(RefusalReason.LIMIT_EXCEEDED, f"more than {MAX_ITEMS} items", name)
        return saves

    def _require_unchanged(self, name: str) -> None:
        found, before = self._context.volume.facts(posixpath.join(self._place, name)), self._files[name]
        if found is None or (found.size, found.mtime_ns) != (before.size, before.mtime_ns):
            self._refuse(RefusalReason.CHANGED, "changed while it was looked at", name)

    def _check_files(self, saves: Sequence[Saved]) -> dict[str, Intervals]:
        """Every named byte is there, and no other. Intervals by file, in order."""
        files: dict[str, Intervals] = {}
        for saved in saves:
            for name, intervals in saved.files.items():
                if files.setdefault(name, intervals) is not intervals:
                    files[name].extend(intervals)
        for name in sorted(files):
            if name not in self._files:
                self._refuse(RefusalReason.FILE_MISSING, "named by the metadata and not there", shown(name))
            files[name].sort()
            self._check_intervals(name, files[name])
        for name, facts in sorted(self._files.items()):
            # a rank, or a thread of its writer, that has nothing to save leaves an empty file
            if name.endswith(SHARD_SUFFIX) and "/" not in name and name not in files and facts.size:
                self._refuse(RefusalReason.FILE_EXTRA, "not named by the metadata: a shard of another save", name)
        return files

    def _check_intervals(self, name: str, intervals: Sequence[Interval]) -> None:
        end = 0
        for interval in intervals:
            if interval.offset != end:
                what = "reaches into the item before" if interval.offset < end else "leaves a hole before it"
                text = f"{shown(interval.key)}, at byte {interval.offset}, {what} (byte {end})"
                self._refuse(RefusalReason.STRUCTURE, text, name, offset=min(interval.offset, end))
            end += interval.length
        size = self._files[name].size
        if size < end:
            text = f"{size} bytes, {end} were written: it was cut off"
            self._refuse(RefusalReason.TRUNCATED, text, name, offset=size)
        if size > end:
            text = f"{size} bytes, {end} were written: something follows, or another save wrote it anew"
            self._refuse(RefusalReason.SIZE_MISMATCH, text, name, offset=end)

    def _plan_file(self, name: str, intervals: Optional[Sequence[Interval]], notes: list[str]) -> Plan:
        facts = self._files[name]
        path = posixpath.join(self._place, name)
        full = self._prefix + name
        plan = Plan(path, full, facts.size, facts.mtime_ns)
        if self._context.level is Level.FAST:
            return plan
        if intervals is not None:
            spans, note = self._read_items(path, full, intervals)
            notes.extend([note] if note else [])
            return Plan(path, full, facts.size, facts.mtime_ns, spans)
        if name.endswith(SUFFIXES):
            try:
                return plan_file(self._context, path, full).plan
            except Refused as refused:
                if refused.reason is not RefusalReason.UNKNOWN_FORMAT:  # else by its name alone a file of torch.save
                    raise
        return plan

    def _read_items(self, path: str, full: str, intervals: Sequence[Interval]) -> tuple[ItemSpans, str]:
        with self._context.volume.open_file(path) as (descriptor, facts):
            source = Source(self._context.volume, descriptor, path, facts.size)
            return read_items(source, full, intervals, self._context.deadline.check)

    def _is_resumable(self, saves: Sequence[Saved]) -> bool:
        if any(name.endswith(SUFFIXES) for name in self._files):
            return True
        return any(saved.has_others or any(map(_STATE.search, saved.tensors)) for saved in saves)

    def _refuse(self, reason: RefusalReason, text: str, name: str, *, offset: Optional[int] = None) -> NoReturn:
        full = self._prefix + name
        raise Refused(reason, f"{full}: {text}", entry=full, offset=offset)
