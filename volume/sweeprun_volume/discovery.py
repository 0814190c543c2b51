"""Checkpoints on the volume that the next decision has to know of."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import Optional

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import EPOCH_PLACEHOLDER, RunLayout, step_name
from sweeprun_protocol.prepare import PrepareRequest
from sweeprun_protocol.reasons import Format
from sweeprun_protocol.records import CheckpointRef, Decision

from .decisions import read_seen
from .formats.finding import find_checkpoints
from .formats.tree import facts_of
from .lineage import Candidate, FileFacts, Found, eligible, kept
from .operations import Volume


@dataclass(frozen=True)
class Inventory:
    judged: tuple[Found, ...]
    """In the directory that the last attempt wrote into, and what its decision names elsewhere."""
    present: tuple[Found, ...]
    """All that, and what lies where the next attempt will write."""

    def foreign(self) -> dict[str, FileFacts]:
        return {item.path: item.facts for item in self.present if item.facts is not None}


def look_around(
    volume: Volume,
    layout: RunLayout,
    request: PrepareRequest,
    *,
    decided: Optional[Decision],
    epoch: int,
    last_step: Optional[int],
) -> Inventory:
    """take_inventory, with what this client of a network file system remembers of the directories forgotten first."""
    for directory in searched(decided, request.checkpoint_directory, epoch):
        volume.look_anew(posixpath.join(layout.directory, directory))
    return take_inventory(
        volume,
        layout,
        decided=decided,
        directory=request.checkpoint_directory,
        epoch=epoch,
        chosen=request.format,
        last_step=last_step,
    )


def candidates_of(
    volume: Volume, layout: RunLayout, request: PrepareRequest, inventory: Inventory, *, decided: Optional[Decision]
) -> list[Candidate]:
    """Those that the request lets be read, newest first."""
    seen = read_seen(volume, layout, decided) if decided is not None else {}
    found = eligible(inventory.judged, decided=decided, seen=seen)
    limit = request.from_step
    return [_with_pinned_digest(request, item) for item in found if limit is None or item.step <= limit]


def _with_pinned_digest(request: PrepareRequest, candidate: Candidate) -> Candidate:
    """The digest that is kept off the volume outweighs what the volume says of itself."""
    pinned = request.pinned
    if pinned is None or pinned.digest is None or pinned.format is not candidate.format:
        return candidate
    if (pinned.path, pinned.epoch) != (candidate.path, candidate.epoch):
        return candidate
    return replace(candidate, digest=pinned.digest)


def take_inventory(
    volume: Volume,
    layout: RunLayout,
    *,
    decided: Optional[Decision],
    directory: str,
    epoch: int,
    chosen: Format,
    last_step: Optional[int] = None,
) -> Inventory:
    """`directory` and `epoch` are those of the next attempt; `directory` may hold `{epoch}`. `last_step` is what the
    last attempt tells of: its checkpoint is asked for by name, since listings of network file systems lag."""
    before = _written_before(decided, directory)
    judged = find_checkpoints(volume, layout, before, chosen)
    if decided is not None:
        if last_step is not None and chosen in (Format.AUTO, Format.SWEEPRUN):
            path = posixpath.join(before, step_name(last_step, decided.epoch))
            last = CheckpointRef(last_step, decided.epoch, path, None, Format.SWEEPRUN)
            judged += _by_name(volume, layout, [last], {item.path for item in judged})
        inherited = [ref for _, ref in sorted(kept(decided).items())]
        judged += _by_name(volume, layout, inherited, {item.path for item in judged})
    after = _expand(directory, epoch)
    known = {item.path for item in judged}
    others = [] if after == before else find_checkpoints(volume, layout, after, chosen)
    present = judged + [item for item in others if item.path not in known]
    return Inventory(tuple(judged), tuple(present))


def searched(decided: Optional[Decision], directory: str, epoch: int) -> list[str]:
    """Directories that `take_inventory` looks into, and those that hold them; below the run directory, outer first."""
    found: dict[str, None] = {}
    for place in (_written_before(decided, directory), _expand(directory, epoch)):
        parts = place.split("/")
        found.update(dict.fromkeys("/".join(parts[:count]) for count in range(1, len(parts) + 1)))
    return list(found)


def _written_before(decided: Optional[Decision], directory: str) -> str:
    return fixed_part(directory) if decided is None else _expand(decided.checkpoint_directory, decided.epoch)


def _expand(directory: str, epoch: int) -> str:
    return directory.replace(EPOCH_PLACEHOLDER, str(epoch))


def fixed_part(directory: str) -> str:
    """Where a script of before wrote: the directory without the part that tells epochs apart."""
    parts: list[str] = []
    for part in directory.split("/"):
        if EPOCH_PLACEHOLDER in part:
            break
        parts.append(part)
    return "/".join(parts)


def _by_name(volume: Volume, layout: RunLayout, refs: list[CheckpointRef], known: set[str]) -> list[Found]:
    items = []
    for ref in refs:
        found = _named(volume, layout, ref) if ref.path not in known else None
        if found is not None:
            items.append(found)
    return items


def _named(volume: Volume, layout: RunLayout, ref: CheckpointRef) -> Optional[Found]:
    place = posixpath.join(layout.directory, ref.path)
    if not volume.exists(place):
        return None
    if ref.format is Format.SWEEPRUN:
        return Found(ref.format, ref.path, ref.step, ref.epoch, None)
    return Found(ref.format, ref.path, ref.step, None, facts_of(volume, place))
