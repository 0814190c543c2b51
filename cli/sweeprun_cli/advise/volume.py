"""What saves cost, from the manifests that the library's checkpoints carry on the volume. Nothing is changed."""

from __future__ import annotations

import posixpath
import statistics
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sweeprun_cli.exits import CommandError, Exit
from sweeprun_cli.inspect.reading import NothingFoundError, find_runs, read_run
from sweeprun_protocol.manifest import Manifest
from sweeprun_protocol.reasons import Format
from sweeprun_volume.errors import UnsafeEntryError, VolumeError
from sweeprun_volume.formats import Refused
from sweeprun_volume.formats.own import read_manifest
from sweeprun_volume.operations import Volume


@dataclass(frozen=True, slots=True)
class Saves:
    count: int
    save_seconds: float | None
    """Median; None where no manifest says."""
    interval_seconds: float | None
    """Median between two saves of one attempt; None below two."""


def read_saves(directory: Path) -> Saves:
    """Of the one run that lies in `directory` or below it. Raises CommandError."""
    try:
        found = find_runs(directory)
    except NothingFoundError as error:
        raise CommandError(Exit.USAGE, str(error)) from None
    if len(found) != 1:
        raise CommandError(Exit.USAGE, f"{len(found)} runs lie in {directory}: name the directory of one")
    view = read_run(found[0], level=None, timeout_seconds=60)
    volume = Volume(str(found[0].resolve()))
    manifests = []
    for one in view.checkpoints:
        if one.format is not Format.SWEEPRUN:
            continue
        try:
            manifests.append(read_manifest(volume, posixpath.join("", one.path))[0])
        except (Refused, UnsafeEntryError, VolumeError):
            continue  # damaged: `inspect --check` tells of it
    return saves_of(manifests)


def saves_of(manifests: list[Manifest]) -> Saves:
    seconds = [one.save_seconds for one in manifests if one.save_seconds is not None and one.save_seconds > 0]
    ordered = sorted((one for one in manifests if one.time > 0), key=lambda one: one.time)
    between = [later.time - before.time for before, later in pairwise(ordered) if later.epoch == before.epoch]
    return Saves(
        count=len(manifests),
        save_seconds=statistics.median(seconds) if seconds else None,
        interval_seconds=statistics.median(between) if between else None,
    )
