"""Do all ranks hold the same verified checkpoint? Then all load it; else none trains.

The operator pinned one checkpoint by step and digest. Each rank opens it by name (listings of network file systems
lag), proves the bytes that it will read, and votes; a mixture of steps needs two ranks that voted alike for different
things, which the comparison of the votes excludes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from sweeprun_protocol.environ import RunEnvironment
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_protocol.layout import MANIFEST
from sweeprun_protocol.manifest import MAX_MANIFEST_BYTES, Manifest, ManifestFile, digest_of
from sweeprun_protocol.reasons import Format
from sweeprun_volume.hashing import PIECE_BYTES, ChunkHasher, aligned_buffer
from sweeprun_volume.operations import Volume

from .log import say
from .ranks import Ranks


@dataclass(frozen=True)
class Pinned:
    """What this rank was told to start from; no path: at step 0."""

    run_id: str
    epoch: int
    step: int
    path: Optional[str]
    """Relative to the run directory."""
    digest: Optional[str]
    format: Optional[str]

    @staticmethod
    def of(environment: RunEnvironment) -> Pinned:
        path = environment.resume_from
        return Pinned(
            run_id=environment.run_id,
            epoch=environment.epoch,
            step=environment.resume_step or 0,
            path=os.path.relpath(path, environment.run_dir) if path else None,
            digest=environment.resume_digest,
            format=environment.resume_format,
        )


class NotAgreedError(SystemExit):
    """At least one rank cannot load what was pinned; the message is the same on all of them.

    No script has to catch it, and none catches it by accident: the process ends with a code that the operator knows.
    """

    def __init__(self, message: str) -> None:
        self.exit_code = int(ExitCode.NO_AGREEMENT)
        self.message = message
        super().__init__(self.exit_code)

    def __str__(self) -> str:
        return self.message


def verify(volume: Volume, pinned: Pinned, *, files: Sequence[str], world: int) -> Optional[str]:
    """What is wrong with the pinned checkpoint as this rank sees it; None: nothing. Every byte of `files` is read."""
    if pinned.path is None:
        return None
    if pinned.format != str(Format.SWEEPRUN):
        return f"{pinned.path} was not written by this library: load it from $SWEEPRUN_RESUME_FROM yourself"
    name = f"{pinned.path}/{MANIFEST}"
    try:
        data = volume.read(name, limit=MAX_MANIFEST_BYTES)
        if data is None:
            return f"{name} is not there"
        if digest_of(data) != pinned.digest:
            return f"{name} has digest {digest_of(data)}, {pinned.digest} was pinned"
        manifest = Manifest.decode(data, where=name)
        if manifest.world_size != world:
            return (
                f"{pinned.path} was written by {manifest.world_size} ranks, {world} are here: states of ranks "
                "(random generators, data loaders) cannot be divided anew"
            )
        return _verify_files(volume, pinned.path, manifest, files)
    except Exception as error:  # noqa: BLE001 - whatever it is: a rank that leaves here would leave the others waiting
        return str(error) or type(error).__name__


def _verify_files(volume: Volume, path: str, manifest: Manifest, files: Sequence[str]) -> Optional[str]:
    listed = {file.path: file for file in manifest.files}
    for file in files:
        known = listed.get(file)
        if known is None:
            return f"{path} has no {file}: the script saves other parts than it did"
        if _chunks(volume, f"{path}/{file}", known, manifest.algorithm) != known.chunks:
            return f"{path}/{file} is not what was written"
    return None


def _chunks(volume: Volume, path: str, file: ManifestFile, algorithm: str) -> tuple[str, ...]:
    hasher = ChunkHasher(algorithm)
    buffer = aligned_buffer(PIECE_BYTES)
    with volume.open_file(path) as (descriptor, _):
        while hasher.size <= file.size:
            count = volume.read_at(descriptor, buffer, hasher.size, path)
            if count == 0:
                break
            hasher.update(buffer[:count])
    return hasher.finish()


def agree(ranks: Ranks, pinned: Pinned, problem: Optional[str]) -> None:
    """Collective. Raises NotAgreedError on all ranks unless all of them were told the same and none has a problem."""
    votes = ranks.gather((pinned, problem))
    problems = [f"rank {rank}: {told}" for rank, (_, told) in enumerate(votes) if told is not None]
    if problems:
        raise _disagreement("; ".join(problems[:4]))
    if any(other != votes[0][0] for other, _ in votes):
        told = sorted({f"epoch {other.epoch}, step {other.step}" for other, _ in votes})
        raise _disagreement(f"the ranks were told to start from different points: {', '.join(told)}")


def _disagreement(message: str) -> NotAgreedError:
    say(f"no rank trains: {message}")
    return NotAgreedError(message)
