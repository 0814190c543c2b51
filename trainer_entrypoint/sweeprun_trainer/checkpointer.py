"""Commit and restore checkpoints of the own format, on all ranks together."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDoneError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional

from sweeprun_protocol.manifest import BLAKE2B_128
from sweeprun_volume.hashing import preferred_algorithm

from .agreement import NotAgreedError, Pinned, Verified, agree, prove_file, verify
from .channel import Sender
from .commit import Captured, Committer, Outcome, Place
from .log import say
from .ranks import PeerLostError, Ranks
from .staging import StagingCopy
from .state import Item, rank_file, read_state
from .stateful import RandomState

if TYPE_CHECKING:
    from .sharded import ShardedState

MARGIN_SECONDS = 2.0
"""Of the grace, for what comes after the last save."""
REMEMBERED = 5
"""Saves whose time says how long the next one takes."""


@dataclass(frozen=True)
class _Told:
    """What a rank says before a save."""

    step: int
    algorithm: str
    left: Optional[float]
    """Seconds of the grace; None: nobody told this rank to stop."""
    expected: float
    """Seconds that a save takes; 0 where none was measured."""


class Checkpointer:
    """Made by Run.checkpointer(). save(), save_async() and restore() are collective: call them on every rank, at the
    same step."""

    def __init__(
        self,
        place: Place,
        ranks: Ranks,
        items: Sequence[Item],
        *,
        pinned: Pinned,
        sender: Sender,
        leave: Callable[[int], object],
        fenced: Callable[[int], object] = int,
        grace_left: Callable[[], Optional[float]] = lambda: None,
        sharded: Optional[ShardedState] = None,
        drop_per_rank: bool = False,
    ) -> None:
        """
        Args:
            leave: is told the exit code of a process that ends here.
            fenced: is told the epoch of a later claim: the attempt is over.
            grace_left: seconds; None while nobody told this process to stop.
            drop_per_rank: with another number of ranks, go on without the states of ranks.
        """
        self._place = place
        self._ranks = ranks
        self._items = list(items)
        self._pinned = pinned
        self._sender = sender
        self._leave = leave
        self._fenced = fenced
        self._grace_left = grace_left
        self._sharded = sharded
        self._drop_per_rank = drop_per_rank
        self._committer = Committer(place, ranks)
        self._committed: set[int] = set()
        self._parent: Optional[int] = pinned.step if pinned.path is not None else None
        self._took: deque[float] = deque(maxlen=REMEMBERED)
        self._background: Optional[tuple[ThreadPoolExecutor, Committer]] = None
        self._outstanding: Optional[Future[Outcome]] = None
        self._last_in_background = True
        """Whether the newest save in the background that has ended is committed."""

    # -- restoring -------------------------------------------------------------------------------------------------

    def restore(self) -> int:
        """Load the pinned checkpoint on every rank, or nothing where there is none. The random generators come last.

        Returns:
            The step that is done; 0: training starts at the beginning.

        Raises:
            NotAgreedError: on all ranks, if it cannot be loaded on one of them, or one is gone. No rank may train then.
            WorldSizeError: on all ranks, if another number of ranks wrote it and states of ranks may not be dropped.
        """
        try:
            return self._restore()
        except NotAgreedError as error:
            # W&B's client learns the code from sys.exit alone, and would call this a good end
            self._leave(error.exit_code)
            raise
        except PeerLostError as error:
            self._leave(NotAgreedError.exit_code)
            raise NotAgreedError(str(error)) from error

    def _restore(self) -> int:
        litter = self._committer.sweep()
        if litter is not None and self._ranks.leads:
            say(f"what older epochs left unfinished stays on the volume: {litter}")
        verified = verify(
            self._place.volume, self._pinned, files=self._files, world=self._ranks.world, resize=self._drop_per_rank
        )
        agree(self._ranks, self._pinned, verified.problem, resized=verified.resized)
        if self._pinned.path is None:
            return 0
        if verified.resized and self._ranks.leads:
            say(f"{self._ranks.world} ranks go on where others were: generators and loaders of ranks begin anew")
        agree(self._ranks, self._pinned, self._load(self._pinned.path, verified))
        return self._pinned.step

    def restore_random_state(self) -> None:
        """Once more, after an iterator over a DataLoader was made: making one draws from the generators.

        Not needed with ResumableLoader, whose iterator restore() makes before it restores the generators.
        """
        for item in self._items:
            if isinstance(item.state, RandomState):
                item.state.load_again()

    def _files(self, resized: bool) -> list[str]:
        """That this rank reads whole; shards are proved when they are read."""
        rests = self._sharded.names if self._sharded is not None else ()
        rank = 0 if resized else self._ranks.rank
        return [
            *(item.file for item in self._items if item.shared or not resized),
            *(rank_file(name, rank) for name in rests),
        ]

    def _load(self, path: str, verified: Verified) -> Optional[str]:
        """What this rank ran into; None: all is loaded. Raises PeerLostError."""
        part = ""
        volume = self._place.volume
        try:
            if self._sharded is not None:
                part = "shards"
                self._load_sharded(self._sharded, path, verified)
            for item in self._items:
                part = item.file
                if item.shared or not verified.resized:
                    item.state.load_state_dict(read_state(volume, path, part))
        except PeerLostError:
            raise
        except Exception as error:  # noqa: BLE001 - user code and torch raise what they like; the ranks have to hear
            return f"{path}/{part} cannot be loaded: {type(error).__name__}: {error}"
        return None

    def _load_sharded(self, sharded: ShardedState, path: str, verified: Verified) -> None:
        from . import dcp_storage

        rank = 0 if verified.resized else self._ranks.rank
        problem: Optional[str] = None
        tensors: dict[str, Any] = {}
        rests: dict[str, Any] = {}
        try:
            rests = {name: read_state(self._place.volume, path, rank_file(name, rank)) for name in sharded.names}
            tensors, _ = sharded.split()
            sharded.check(tensors, rests)
        except Exception as error:  # noqa: BLE001 - the others would wait in the load below
            problem = f"{type(error).__name__}: {error}"
        problem = next((told for told in self._ranks.gather(problem) if told is not None), None)
        if problem is not None:
            raise ValueError(problem)
        volume, manifest = self._place.volume, verified.manifest
        assert manifest is not None, "verified before"
        dcp_storage.load(
            tensors, volume, path, self._ranks, prove=lambda file: prove_file(volume, path, file, manifest)
        )
        sharded.join(tensors, rests)

    # -- saving ----------------------------------------------------------------------------------------------------

    def save(self, step: int) -> bool:
        """Commit a checkpoint of `step` while training waits. A step that this epoch has committed already is not
        written again.

        Waits first for a save in the background. Once training was told to stop, that one has until the end of the
        grace; and nothing new is begun that takes longer, by what earlier saves took, than the grace has left.

        Returns:
            Whether it is committed, the same on every rank. False is logged with its reason; training goes on.

        Raises:
            PeerLostError: a rank is gone, or silent, now or in the save in the background.
        """
        began = time.monotonic()
        ready, algorithm = self._prepare(int(step))
        if algorithm is None:
            return ready
        outcome = self._committer.commit(
            self._capture(int(step), None), algorithm=algorithm, began=began, parent=self._parent, waited=None
        )
        return self._take(outcome, waited=time.monotonic() - began)

    def save_async(self, step: int) -> bool:
        """Copy the state of `step` to the CPU's memory, and commit it while training goes on.

        At most one such save is outstanding: while one is, this waits for it first. Once training was told to stop it
        is save().

        Returns:
            Whether the save in the background before this one is committed, the same on every rank; True where there
            was none. False is logged with its reason.

        Raises:
            PeerLostError: a rank is gone, or silent, now or in the save in the background.
        """
        began = time.monotonic()
        step = int(step)
        ready, algorithm = self._prepare(step)
        if algorithm is None:
            return ready and self._last_in_background
        before, self._last_in_background = self._last_in_background, True
        captured = self._capture(step, StagingCopy())
        waited = time.monotonic() - began
        self._sender.send({"step": step, "saveSeconds": round(waited, 3)})
        if self._background is None:
            self._background = ThreadPoolExecutor(1, "sweeprun-save"), Committer(self._place, self._ranks.sibling())
        executor, committer = self._background
        self._outstanding = executor.submit(
            committer.commit, captured, algorithm=algorithm, began=began, parent=self._parent, waited=waited
        )
        return before

    def wait(self, seconds: Optional[float] = None) -> bool:
        """Until no save is outstanding, or for `seconds`; whether the last one in the background is committed, as far
        as it has ended. Raises PeerLostError."""
        outstanding = self._outstanding
        if outstanding is not None:
            try:
                outcome = outstanding.result(timeout=seconds)
            except NotDoneError:
                return False
            except BaseException:
                self._outstanding = None
                raise
            self._outstanding = None
            self._last_in_background = self._take(outcome, waited=None)
        return self._last_in_background

    def _prepare(self, step: int) -> tuple[bool, Optional[str]]:
        """(whether the step is committed already, the algorithm to save with; None: there is nothing to save)."""
        mine = _Told(step, preferred_algorithm(), self._grace_left(), max(self._took, default=0.0))
        answers = self._ranks.gather(mine)
        left = min((told.left for told in answers if told.left is not None), default=None)
        if not self._settle(left, step):
            return False, None
        steps = sorted({told.step for told in answers})
        if len(steps) > 1:
            self._say(f"nothing is committed, training goes on: the ranks are at different steps, {steps}")
            return False, None
        if step in self._committed:
            return True, None
        if left is not None:
            # anew, and the same on all ranks: the wait for the background took its part
            now = self._grace_left()
            left = min(self._ranks.gather(left if now is None else now))
            expected = max(told.expected for told in answers)
            if expected and expected + MARGIN_SECONDS > left:
                self._say(
                    f"step {step} is not saved: a save takes {expected:.1f} s, the grace has {max(left, 0.0):.1f} s "
                    f"left; the newest checkpoint is of step {self._parent or 0}"
                )
                return False, None
        # images of ranks may differ, and one manifest names one algorithm: the one that none is without
        algorithms = {told.algorithm for told in answers}
        return True, algorithms.pop() if len(algorithms) == 1 else BLAKE2B_128

    def _settle(self, left: Optional[float], step: int) -> bool:
        """No save is outstanding any more; False: the one that is does not end within the grace."""
        if self._outstanding is None:
            return True
        self.wait(None if left is None else max(0.0, left - MARGIN_SECONDS))
        if left is None:
            return True
        if all(self._ranks.gather(self._outstanding is None)):
            return True
        self._say(f"step {step} is not saved: the save before it does not end within the grace")
        return False

    def _capture(self, step: int, copy: Optional[StagingCopy]) -> Captured:
        captured = Captured(step)
        try:
            if self._sharded is not None:
                captured.tensors = {}
                tensors, rests = self._sharded.split()
                captured.tensors = tensors
                rank = self._ranks.rank
                captured.files = [(rank_file(name, rank), rest) for name, rest in rests.items()]
            captured.files += [(item.file, item.state.state_dict()) for item in self._items if item.own]
            if copy is not None:
                captured.files = [(file, copy.of(state)) for file, state in captured.files]
                captured.tensors = copy.of(captured.tensors)
        except Exception as error:  # noqa: BLE001 - user code raises what it likes, and the other ranks wait to hear
            captured.problem = f"{type(error).__name__}: {error}"
        return captured

    def _take(self, outcome: Outcome, *, waited: Optional[float]) -> bool:
        """Note what became of a save; `waited`: how long training did for it, where that was not told before."""
        step = outcome.step
        if outcome.problem is not None:
            self._say(f"the checkpoint of step {step} is not committed, training goes on: {outcome.problem}")
            if outcome.later is not None:
                self._fenced(outcome.later)
            return False
        self._took.append(outcome.seconds)
        self._committed.add(step)
        self._parent = step
        told: dict[str, Any] = {"committed": step}
        self._sender.send(told if waited is None else {**told, "saveSeconds": round(waited, 3)})
        return True

    def _say(self, message: str) -> None:
        if self._ranks.leads:
            say(message)
