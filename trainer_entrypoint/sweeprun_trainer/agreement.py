"""Do all ranks hold the same verified checkpoint? Then all load it; else none trains.

The operator pinned one checkpoint by step and digest. Each rank opens it by name (listings of network file systems
lag), proves the bytes that it will read, and votes; a mixture of steps needs two ranks that voted alike for different
things, which the comparison of the votes excludes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional

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

    exit_code = int(ExitCode.NO_AGREEMENT)

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(self.exit_code)

    def __str__(self) -> str:
        return self.message


class WorldSizeError(NotAgreedError):
    """Another number of ranks wrote the checkpoint, and states of ranks cannot be divided anew."""


@dataclass(frozen=True)
class Verified:
    """What this rank found."""

    problem: Optional[str] = None
    """None: nothing is wrong."""
    manifest: Optional[Manifest] = None
    """None where nothing is pinned, or it could not be read."""
    resized: bool = False
    """Another number of ranks wrote it."""


def verify(
    volume: Volume, pinned: Pinned, *, files: Callable[[bool], Sequence[str]], world: int, resize: bool = False
) -> Verified:
    """The pinned checkpoint as this rank sees it.

    Args:
        files: whose every byte is read; asked with whether another number of ranks wrote them.
        resize: the states of ranks may be left behind where their number changed.
    """
    if pinned.path is None:
        return Verified()
    if pinned.format != str(Format.SWEEPRUN):
        return Verified(f"{pinned.path} was not written by this library: load it from $SWEEPRUN_RESUME_FROM yourself")
    try:
        return _verify(volume, pinned, pinned.path, files, world, resize)
    except Exception as error:  # noqa: BLE001 - whatever it is: a rank that leaves here would leave the others waiting
        return Verified(str(error) or type(error).__name__)


def _verify(
    volume: Volume, pinned: Pinned, path: str, files: Callable[[bool], Sequence[str]], world: int, resize: bool
) -> Verified:
    name = f"{path}/{MANIFEST}"
    data = volume.read(name, limit=MAX_MANIFEST_BYTES)
    if data is None:
        return Verified(f"{name} is not there")
    if digest_of(data) != pinned.digest:
        return Verified(f"{name} has digest {digest_of(data)}, {pinned.digest} was pinned")
    manifest = Manifest.decode(data, where=name)
    resized = manifest.world_size != world
    if resized and not resize:
        problem = (
            f"{path} was written by {manifest.world_size} ranks, {world} are here: states of ranks (generators, data "
            "loaders) cannot be divided anew; checkpointer(when_world_changes='drop_per_rank') goes on without them"
        )
        return Verified(problem, manifest, resized)
    for file in files(resized):
        prove_file(volume, path, file, manifest)
    return Verified(None, manifest, resized)


def prove_file(volume: Volume, path: str, file: str, manifest: Manifest) -> None:
    """Raises ValueError unless every byte of a file of the checkpoint at `path` is what was written."""
    known = next((one for one in manifest.files if one.path == file), None)
    if known is None:
        raise ValueError(f"{path} has no {file}: the script saves other parts than it did")
    if _chunks(volume, f"{path}/{file}", known, manifest.algorithm) != known.chunks:
        raise ValueError(f"{path}/{file} is not what was written")


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


def agree(ranks: Ranks, pinned: Pinned, problem: Optional[str], *, resized: bool = False) -> None:
    """Collective. Raises NotAgreedError on all ranks unless all of them were told the same and none has a problem.

    Raises WorldSizeError where the problem is their number.
    """
    votes = ranks.gather((pinned, problem, resized))
    problems = [f"rank {rank}: {told}" for rank, (_, told, _) in enumerate(votes) if told is not None]
    if problems:
        kind = WorldSizeError if all(other for _, _, other in votes) else NotAgreedError
        raise _disagreement("; ".join(problems[:4]), kind)
    if any(other != votes[0][0] for other, _, _ in votes):
        told = sorted({f"epoch {other.epoch}, step {other.step}" for other, _, _ in votes})
        raise _disagreement(f"the ranks were told to start from different points: {', '.join(told)}")


def _disagreement(message: str, kind: type[NotAgreedError] = NotAgreedError) -> NotAgreedError:
    say(f"no rank trains: {message}")
    return kind(message)
