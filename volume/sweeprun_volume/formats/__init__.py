"""Formats of checkpoints: how each is recognised, and how it is checked without unpickling."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Optional, Protocol

from sweeprun_protocol.codec import as_dicts, dump
from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.manifest import ManifestFile
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.clock import Deadline
from sweeprun_volume.operations import Entry, Volume


@dataclass(frozen=True)
class Sighting:
    """An entry of the checkpoint directory, which may be a checkpoint."""

    volume: Volume
    place: str
    """From the volume's root."""
    entry: Entry
    listing: Optional[Sequence[Entry]]
    """What a directory holds; None for what is none."""


@dataclass(frozen=True)
class Recognised:
    """An entry of the checkpoint directory that is a checkpoint by its name and its parts; nobody has judged it."""

    step: int
    epoch: Optional[int] = None
    """From the name (own format); None: a foreign one, which says nothing of it."""


@dataclass(frozen=True)
class Contents:
    """Digests of every byte of a checkpoint."""

    algorithm: str
    files: tuple[ManifestFile, ...]
    """Sorted by path, relative to the checkpoint; of a checkpoint that is one file, that file's name."""

    @property
    def digest(self) -> str:
        """SHA-256 over the paths, sizes and chunk digests."""
        told = {"algorithm": self.algorithm, "files": as_dicts(self.files)}
        return "sha256:" + hashlib.sha256(dump(told)).hexdigest()


@dataclass(frozen=True)
class Checked:
    """A checkpoint that may be used."""

    digest: Optional[str]
    """None where it was not read whole (Fast, foreign formats)."""
    bytes: int
    """Bytes that were read."""
    uncovered: int = 0
    """Bytes in which this format alone could not show damage; a digest that was recorded before still can."""
    note: str = ""
    """What the check could not cover, as a sentence."""
    world_size: Optional[int] = None
    """Ranks that wrote it, where it tells."""
    contents: Optional[Contents] = None
    """Digests of every file, of a foreign checkpoint that was read whole."""


MAX_MESSAGE = 600
MAX_ENTRY = 300


def _printable(text: str, most: int) -> str:
    """Names on a volume may hold anything and be of any length: records and terminals get what they can carry."""
    if len(text) > most:
        text = f"{text[: most // 2 - 2]}...{text[-(most // 2 - 1) :]}"
    return "".join(character if character.isprintable() else "?" for character in text)


class Refused(Exception):  # noqa: N818 - a verdict, no error
    """The checkpoint must not be used. With NOT_RESUMABLE nothing is wrong with it: it is passed over, never moved."""

    def __init__(
        self,
        reason: RefusalReason,
        message: str,
        *,
        entry: Optional[str] = None,
        offset: Optional[int] = None,
        bytes_read: int = 0,
    ) -> None:
        message = _printable(message, MAX_MESSAGE)
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.entry = _printable(entry, MAX_ENTRY) if entry else None
        self.offset = offset
        self.bytes_read = bytes_read


@dataclass(frozen=True)
class Context:
    """What a check is asked for."""

    volume: Volume
    layout: RunLayout
    run_id: str
    level: Level
    deadline: Deadline
    resumable_only: bool = True
    """Format Auto: what holds weights only is passed over. A format that the user chose is taken at its word."""
    known: Optional[Contents] = None
    """What a foreign checkpoint held when it was first read whole."""
    algorithm: Optional[str] = None
    """Of the digests of a foreign checkpoint of which nothing is known; None: the fastest here."""


class CheckpointFormat(Protocol):
    kind: Format

    def recognise(self, sighting: Sighting) -> Optional[Recognised]:
        """Whether this is a checkpoint of the format; cheap, for it is asked of every entry. Raises VolumeError."""
        ...

    def check(self, context: Context, path: str, *, step: int, epoch: int) -> Checked:
        """`path` is relative to the run directory. Raises Refused, OutOfTimeError, VolumeError."""
        ...


def formats_of(chosen: Format) -> list[CheckpointFormat]:
    """Those that are asked, in this order: the first one that recognises an entry has it."""
    from .dcp import DcpFormat  # they import what is above
    from .huggingface import HuggingFaceFormat
    from .lightning import LightningFormat
    from .own import OwnFormat
    from .safetensors import SafetensorsFormat
    from .torch_zip import TorchFormat

    every: list[CheckpointFormat] = [
        OwnFormat(),
        HuggingFaceFormat(),
        DcpFormat(),
        SafetensorsFormat(),
        LightningFormat(chosen=chosen is Format.LIGHTNING),
        TorchFormat(),
    ]
    return every if chosen is Format.AUTO else [item for item in every if item.kind is chosen]


def format_of(kind: Format) -> CheckpointFormat:
    return formats_of(kind)[0]
