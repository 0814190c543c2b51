"""Which checkpoints may be read at an epoch. Pure.

Eligible after epoch D, the newest that has a decision: what D committed, D's base, and what D sealed at or below the
step of its base. A late commit of an older epoch and a branch that was abandoned are on no such path, whatever their
step, and are never read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import EPOCH_PLACEHOLDER
from sweeprun_protocol.reasons import Format
from sweeprun_protocol.records import CheckpointRef, Decision


@dataclass(frozen=True)
class FileFacts:
    """A foreign checkpoint when it was last looked at: who writes it again changes one of these."""

    size: int
    """Bytes of all its files."""
    mtime_ns: int
    """The newest of them."""
    inode: int
    """Told for the same mount only: some network file systems number files anew."""

    def same_content(self, other: FileFacts) -> bool:
        return (self.size, self.mtime_ns) == (other.size, other.mtime_ns)


@dataclass(frozen=True)
class Found:
    """A checkpoint on the volume that nobody has judged yet."""

    format: Format
    path: str
    """Relative to the run directory."""
    step: int
    epoch: Optional[int]
    """From the name (own format); None: a foreign file, which says nothing of it."""
    facts: Optional[FileFacts]
    """Foreign ones; None for what is no checkpoint at all: a device, a link inside, too many files."""


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that may be read, and what is known of it."""

    format: Format
    path: str
    step: int
    epoch: int
    digest: Optional[str]
    """What it must still have, where somebody read it whole before."""
    facts: Optional[FileFacts]

    def ref(self, digest: Optional[str]) -> CheckpointRef:
        return CheckpointRef(self.step, self.epoch, self.path, digest, self.format)


def kept(decision: Decision) -> dict[str, CheckpointRef]:
    """What an epoch inherits to the next one by its decision alone: its base and what was sealed at or below it."""
    if decision.base is None:
        return {}
    refs = {ref.path: ref for ref in decision.eligible if ref.step <= decision.base.step}
    refs[decision.base.path] = decision.base
    return refs


def eligible(found: Sequence[Found], *, decided: Optional[Decision], seen: Mapping[str, FileFacts]) -> list[Candidate]:
    """Newest first.

    Args:
        decided: decision of epoch D; None: nothing of ours ever ran here (a bare run that was adopted, or a new one).
        seen: all foreign files as they were when D was decided; what is unchanged since is no commit of D.
    """
    inherited = kept(decided) if decided is not None else {}
    candidates = [_candidate(item, decided, seen, inherited) for item in found]
    present = [candidate for candidate in candidates if candidate is not None]
    own = [candidate for candidate in present if candidate.format is Format.SWEEPRUN]
    # training code that commits with a manifest means its other files for something else (weights to publish, say)
    return sorted(own or present, key=_age, reverse=True)


def _candidate(
    item: Found, decided: Optional[Decision], seen: Mapping[str, FileFacts], inherited: Mapping[str, CheckpointRef]
) -> Optional[Candidate]:
    known = inherited.get(item.path)
    if item.epoch is None and _may_be_written_by(decided, item.path) and not _unchanged(item, seen):
        # a file of ours to judge by nothing but its place: the attempt of D wrote it, or wrote it anew
        return _as_candidate(item, decided.epoch if decided is not None else 0, None)
    if known is not None:
        # another format covers other files, and has another digest
        return _as_candidate(item, known.epoch, known.digest if known.format is item.format else None)
    if item.epoch is not None and decided is not None and item.epoch == decided.epoch:
        return _as_candidate(item, item.epoch, None)
    return None


def _may_be_written_by(decided: Optional[Decision], path: str) -> bool:
    """What lies elsewhere is D's base, or sealed by D: whoever changed that, it was not D's attempt."""
    if decided is None:
        return True
    directory = decided.checkpoint_directory.replace(EPOCH_PLACEHOLDER, str(decided.epoch))
    return directory == "." or path.startswith(f"{directory}/")


def _unchanged(item: Found, seen: Mapping[str, FileFacts]) -> bool:
    before = seen.get(item.path)
    if before is None:
        return False
    return item.facts is None or item.facts.same_content(before)


def _as_candidate(item: Found, epoch: int, digest: Optional[str]) -> Candidate:
    return Candidate(item.format, item.path, item.step, epoch, digest, item.facts)


def _age(candidate: Candidate) -> tuple[int, int, int, str]:
    return (candidate.step, candidate.epoch, candidate.facts.mtime_ns if candidate.facts else 0, candidate.path)
