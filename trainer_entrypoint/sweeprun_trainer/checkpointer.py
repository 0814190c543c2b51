"""Commit and restore checkpoints of the own format, on all ranks together.

A commit is: a staging directory beside the final one; every rank writes and fsyncs its files; the manifest, which names
every byte, last; then the rename, and an fsync of the parent. What is interrupted anywhere leaves no checkpoint.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Callable, Optional

import torch

from sweeprun_protocol.layout import MANIFEST, MAX_STEP, RunLayout, parse_staging_name, staging_name, step_name
from sweeprun_protocol.manifest import BLAKE2B_128, Manifest, ManifestFile
from sweeprun_volume.fence import later_claim
from sweeprun_volume.hashing import preferred_algorithm
from sweeprun_volume.operations import DIRECTORY, Volume

from .agreement import NotAgreedError, Pinned, agree, verify
from .channel import Sender
from .log import say
from .ranks import Ranks
from .state import Item, RandomState, read_item, write_item


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


class Checkpointer:
    """Made by Run.checkpointer(). save() and restore() are collective: call them on every rank, at the same step."""

    def __init__(
        self,
        place: Place,
        ranks: Ranks,
        items: list[Item],
        *,
        pinned: Pinned,
        sender: Sender,
        leave: Callable[[int], object],
    ) -> None:
        """`leave` is told the exit code of a process that ends here."""
        self._place = place
        self._ranks = ranks
        self._items = items
        self._pinned = pinned
        self._sender = sender
        self._leave = leave
        self._committed: dict[int, bool] = {}
        self._parent: Optional[int] = pinned.step if pinned.path is not None else None

    def restore(self) -> int:
        """Load the pinned checkpoint on every rank, or nothing where there is none.

        Returns:
            The step that is done; 0: training starts at the beginning.

        Raises:
            NotAgreedError: on all ranks, if it cannot be loaded on one of them. No rank may train then.
        """
        try:
            return self._restore()
        except NotAgreedError as error:
            # W&B's client learns the code from sys.exit alone, and would call this a good end
            self._leave(error.exit_code)
            raise

    def _restore(self) -> int:
        litter = self._lead(self._sweep)
        if litter is not None and self._ranks.leads:
            say(f"what older epochs left unfinished stays on the volume: {litter}")
        mine = [item.file for item in self._items]
        problem = verify(self._place.volume, self._pinned, files=mine, world=self._ranks.world)
        agree(self._ranks, self._pinned, problem)
        if self._pinned.path is None:
            return 0
        agree(self._ranks, self._pinned, self._load(self._pinned.path, self._items))
        return self._pinned.step

    def restore_random_state(self) -> None:
        """Once more, after an iterator over a DataLoader was made: making one draws from the generators."""
        for item in self._items:
            if isinstance(item.state, RandomState):
                item.state.load_again()

    def _load(self, path: str, items: list[Item]) -> Optional[str]:
        file = ""
        try:
            for item in items:
                file = item.file
                item.state.load_state_dict(read_item(self._place.volume, path, item))
        except Exception as error:  # noqa: BLE001 - user code and torch raise what they like; the ranks have to hear
            return f"{path}/{file} cannot be loaded: {type(error).__name__}: {error}"
        return None

    def save(self, step: int) -> bool:
        """Commit a checkpoint of `step`. A step that this epoch has committed already is not written again.

        Returns:
            Whether it is committed, the same on every rank. False is logged with its reason; training goes on.
        """
        step = int(step)  # NumPy's integers and torch's are none to JSON
        began = time.monotonic()
        answers = self._ranks.gather((step, preferred_algorithm()))
        steps = sorted({told for told, _ in answers})
        if len(steps) > 1:
            if self._ranks.leads:
                say(f"nothing is committed, training goes on: the ranks are at different steps, {steps}")
            return False
        if self._committed.get(step):
            return True
        # images of ranks may differ, and one manifest names one algorithm: the one that none is without
        algorithm = answers[0][1] if len({told for _, told in answers}) == 1 else BLAKE2B_128
        problem, staging = self._begin(step)
        if problem is None:
            problem, files = self._write(staging, algorithm)
        if problem is None:
            problem = self._lead(lambda: self._commit(step, staging, files, algorithm, time.monotonic() - began))
        self._committed[step] = problem is None
        if problem is not None:
            self._lead(lambda: self._discard(staging))
            if self._ranks.leads:
                say(f"the checkpoint of step {step} is not committed, training goes on: {problem}")
            return False
        self._parent = step
        self._sender.send({"step": step, "committed": step})
        return True

    def _begin(self, step: int) -> tuple[Optional[str], str]:
        place = self._place
        staging = self._ranks.share(f"{place.directory}/{staging_name(step, place.epoch, secrets.token_hex(4))}")

        def make() -> None:
            if not 0 <= step <= MAX_STEP:
                raise ValueError(f"{step} cannot be the step of a checkpoint")
            place.volume.make_directories(place.directory)
            place.volume.make_directory(staging)

        return self._lead(make), staging

    def _write(self, staging: str, algorithm: str) -> tuple[Optional[str], list[ManifestFile]]:
        """This rank's files; returns those of all ranks, or the problem of any."""
        own = [item for item in self._items if item.own]
        written: list[ManifestFile] = []
        problem: Optional[str] = None
        try:
            written.extend(write_item(self._place.volume, staging, item, algorithm=algorithm) for item in own)
        except Exception as error:  # noqa: BLE001 - as above: a rank that leaves here would leave the others waiting
            problem = f"rank {self._ranks.rank}: {type(error).__name__}: {error}"
        answers = self._ranks.gather((problem, written))
        files = [file for _, some in answers for file in some]
        return next((told for told, _ in answers if told is not None), None), files

    def _commit(self, step: int, staging: str, files: list[ManifestFile], algorithm: str, seconds: float) -> None:
        place = self._place
        manifest = Manifest(
            run_id=place.run_id,
            epoch=place.epoch,
            step=step,
            world_size=self._ranks.world,
            algorithm=algorithm,
            files=tuple(sorted(files, key=lambda file: file.path)),
            resumable=True,
            config_digest=place.config_digest,
            parent_step=self._parent,
            save_seconds=seconds,
            torch_version=torch.__version__,
            time=time.time(),
        )
        for file in manifest.files:  # as this node sees them: what another node wrote must have arrived
            facts = place.volume.facts(f"{staging}/{file.path}")
            if facts is None or facts.size != file.size:
                raise OSError(f"{file.path} does not show with its {file.size} bytes")
        if place.fenced:
            later = later_claim(place.volume, RunLayout(""), epoch=place.epoch)
            if later is not None:
                raise OSError(f"epoch {later} was claimed: this attempt, of {place.epoch}, is over")
        place.volume.publish(f"{staging}/{MANIFEST}", manifest.encode())
        final = f"{place.directory}/{step_name(step, place.epoch)}"
        if not place.volume.move(staging, final):
            raise OSError(f"{final} is there already")

    def _sweep(self) -> None:
        """What older epochs left unfinished: they commit nothing any more."""
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

    def _lead(self, action: Callable[[], None]) -> Optional[str]:
        """What rank 0 ran into, told to every rank; None: it succeeded."""
        problem: Optional[str] = None
        if self._ranks.leads:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - whatever it is: leaving here would leave the others waiting
                problem = str(error) or type(error).__name__
        return self._ranks.share(problem)
