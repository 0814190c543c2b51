"""The commit of one checkpoint by all ranks together.

A staging directory beside the final one; every rank writes and fsyncs its files; the manifest, which names every byte,
last; then the rename, and an fsync of the parent. What is interrupted anywhere leaves no checkpoint.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Optional

import torch

from sweeprun_protocol.layout import MANIFEST, MAX_STEP, RunLayout, parse_staging_name, staging_name, step_name
from sweeprun_protocol.manifest import Manifest, ManifestFile
from sweeprun_volume.fence import later_claim
from sweeprun_volume.operations import DIRECTORY, Volume

from .ranks import PeerLostError, Ranks
from .state import write_state


@dataclass(frozen=True)
class Place:
    """Where checkpoints of this epoch go."""

    volume: Volume
    """The run directory."""
    run_id: str
    epoch: int
    directory: str
    """Relative to the run directory."""
    config_digest: Optional[str] = None
    fenced: bool = True
    """False outside a SweepRun, where nobody claims anything."""


@dataclass
class Captured:
    """The state of one step on this rank."""

    step: int
    files: list[tuple[str, Any]] = field(default_factory=list)
    """Names of this rank's files, and what goes into each."""
    tensors: Optional[dict[str, Any]] = None
    """Cut over the ranks; None where nothing is."""
    problem: Optional[str] = None
    """Why this rank has not all of it."""


@dataclass(frozen=True)
class Outcome:
    """The same on every rank."""

    step: int
    problem: Optional[str] = None
    """None: committed."""
    later: Optional[int] = None
    """Epoch of a later claim: this attempt is over."""
    seconds: float = 0.0
    """From the call to the commit."""


class _FencedError(Exception):
    def __init__(self, later: int, own: int) -> None:
        super().__init__(f"epoch {later} was claimed: this attempt, of {own}, is over")
        self.later = later


class Committer:
    """Every method is collective; what one rank runs into is told to all of them, and raised on none."""

    def __init__(self, place: Place, ranks: Ranks) -> None:
        self._place = place
        self._ranks = ranks

    def commit(
        self, captured: Captured, *, algorithm: str, began: float, parent: Optional[int], waited: Optional[float]
    ) -> Outcome:
        """`waited`: seconds that training waited for it; None: until now. Raises PeerLostError."""
        step = captured.step
        problem, staging = self.begin(step)
        later: Optional[int] = None
        if problem is None:
            problem, files = self._write(captured, staging, algorithm)
        if problem is None:
            manifest = self._manifest(step, files, algorithm, parent)
            problem, later = self._finish(manifest, staging, began=began, waited=waited)
        if problem is not None:
            self.lead(lambda: self._discard(staging))
        return Outcome(step, problem, later, time.monotonic() - began)

    def begin(self, step: int) -> tuple[Optional[str], str]:
        """Make the staging directory of a step; its path."""
        place = self._place
        staging = self._ranks.share(f"{place.directory}/{staging_name(step, place.epoch, secrets.token_hex(4))}")

        def make() -> None:
            if not 0 <= step <= MAX_STEP:
                raise ValueError(f"{step} cannot be the step of a checkpoint")
            place.volume.make_directories(place.directory)
            place.volume.make_directory(staging)

        return self.lead(make), staging

    def _write(self, captured: Captured, staging: str, algorithm: str) -> tuple[Optional[str], list[ManifestFile]]:
        """This rank's files; returns those of all ranks, or the problem of any."""
        written: list[ManifestFile] = []
        problem = captured.problem
        volume = self._place.volume
        try:
            if problem is None:
                written.extend(
                    write_state(volume, staging, file, state, algorithm=algorithm) for file, state in captured.files
                )
        except Exception as error:  # noqa: BLE001 - whatever it is: a rank that leaves here would leave the others waiting
            problem = f"{type(error).__name__}: {error}"
        if captured.tensors is not None:
            # entered by every rank, also by one that has failed: the others wait in it
            failed = self._write_tensors(captured.tensors, staging, algorithm, written)
            problem = problem or failed
        told = None if problem is None else f"rank {self._ranks.rank}: {problem}"
        answers = self._ranks.gather((told, written))
        files = [file for _, some in answers for file in some]
        return next((told for told, _ in answers if told is not None), None), files

    def _write_tensors(
        self, tensors: dict[str, Any], staging: str, algorithm: str, written: list[ManifestFile]
    ) -> Optional[str]:
        from . import dcp_storage  # torch.distributed.checkpoint takes a second to import

        try:
            written.extend(dcp_storage.save(tensors, self._place.volume, staging, algorithm, self._ranks))
        except PeerLostError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            return str(error) or type(error).__name__
        return None

    def _manifest(self, step: int, files: list[ManifestFile], algorithm: str, parent: Optional[int]) -> Manifest:
        return Manifest(
            run_id=self._place.run_id,
            epoch=self._place.epoch,
            step=step,
            world_size=self._ranks.world,
            algorithm=algorithm,
            files=tuple(sorted(files, key=lambda file: file.path)),
            resumable=True,
            config_digest=self._place.config_digest,
            parent_step=parent,
            torch_version=torch.__version__,
            time=time.time(),
        )

    def _finish(
        self, manifest: Manifest, staging: str, *, began: float, waited: Optional[float]
    ) -> tuple[Optional[str], Optional[int]]:
        """(problem, epoch of a later claim)."""
        later: Optional[int] = None

        def publish() -> None:
            nonlocal later
            try:
                self._publish(manifest, staging, began=began, waited=waited)
            except _FencedError as error:
                later = error.later
                raise

        problem = self.lead(publish)
        return problem, self._ranks.share(later) if problem is not None else None

    def _publish(self, manifest: Manifest, staging: str, *, began: float, waited: Optional[float]) -> None:
        place = self._place
        for file in manifest.files:  # as this node sees them: what another node wrote must have arrived
            facts = place.volume.facts(f"{staging}/{file.path}")
            if facts is None or facts.size != file.size:
                raise OSError(f"{file.path} does not show with its {file.size} bytes")
        if place.fenced:
            later = later_claim(place.volume, RunLayout(""), epoch=place.epoch)
            if later is not None:
                raise _FencedError(later, place.epoch)
        manifest = replace(manifest, save_seconds=time.monotonic() - began if waited is None else waited)
        place.volume.publish(f"{staging}/{MANIFEST}", manifest.encode())
        final = f"{place.directory}/{step_name(manifest.step, place.epoch)}"
        if not place.volume.move(staging, final):
            raise OSError(f"{final} is there already")

    def sweep(self) -> Optional[str]:
        """Remove what older epochs left unfinished: they commit nothing any more. Returns why it stays."""
        return self.lead(self._sweep)

    def _sweep(self) -> None:
        if not self._place.fenced:
            return  # nobody says that they are over
        for entry in self._place.volume.entries(self._place.directory):
            epoch = parse_staging_name(entry.name)
            if epoch is not None and epoch < self._place.epoch:
                self._discard(f"{self._place.directory}/{entry.name}")

    def _discard(self, staging: str) -> None:
        volume = self._place.volume
        facts = volume.facts(staging)
        if facts is None or facts.kind != DIRECTORY:
            return
        for entry in volume.entries(staging):
            volume.remove_file(f"{staging}/{entry.name}")
        volume.remove_directory(staging)

    def lead(self, action: Callable[[], None]) -> Optional[str]:
        """What rank 0 ran into, told to every rank; None: it succeeded."""
        problem: Optional[str] = None
        if self._ranks.leads:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - whatever it is: leaving here would leave the others waiting
                problem = str(error) or type(error).__name__
        return self._ranks.share(problem)
