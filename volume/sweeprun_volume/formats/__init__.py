"""Formats of checkpoints: how each is found below a directory, and how it is checked without unpickling."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Optional, Protocol

from sweeprun_protocol.layout import RunLayout, parse_step_name
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.clock import Deadline
from sweeprun_volume.lineage import Found
from sweeprun_volume.operations import Volume


@dataclass(frozen=True)
class Checked:
    """A checkpoint that may be used."""

    digest: Optional[str]
    """None where it was not read whole (Fast, foreign formats)."""
    bytes: int
    """Bytes that were read and compared."""
    note: str = ""
    """What the check could not cover, as a sentence."""


class Refused(Exception):  # noqa: N818 - a verdict, no error
    """The checkpoint must not be used."""

    def __init__(
        self,
        reason: RefusalReason,
        message: str,
        *,
        entry: Optional[str] = None,
        offset: Optional[int] = None,
        bytes_read: int = 0,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.entry = entry
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


class CheckpointFormat(Protocol):
    def find(self, volume: Volume, layout: RunLayout, directory: str) -> list[Found]:
        """Checkpoints below `directory`, which is relative to the run directory."""
        ...

    def check(self, context: Context, path: str, *, step: int, epoch: int) -> Checked:
        """Raises Refused, OutOfTimeError, VolumeError."""
        ...


def formats_of(chosen: Format) -> list[CheckpointFormat]:
    from sweeprun_volume.formats.own import OwnFormat  # they import what is above
    from sweeprun_volume.formats.torch_zip import TorchFormat

    own, torch = OwnFormat(), TorchFormat()
    if chosen is Format.SWEEPRUN:
        return [own]
    return [torch] if chosen is Format.TORCH else [own, torch]


def format_of_path(path: str) -> Format:
    return Format.SWEEPRUN if parse_step_name(posixpath.basename(path)) else Format.TORCH


def checker_of(kind: Format) -> CheckpointFormat:
    return formats_of(kind)[0]
