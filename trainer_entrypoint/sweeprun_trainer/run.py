"""The run that a process trains: where it is, when to stop, and that it is complete."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from sweeprun_protocol.environ import RUN_ID, RunEnvironment
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_protocol.layout import RunLayout, parse_step_name
from sweeprun_protocol.manifest import digest_of
from sweeprun_protocol.records import MAX_METRIC_LENGTH, MAX_METRICS, CompleteRecord, LibraryRecord
from sweeprun_volume.clock import Clock
from sweeprun_volume.operations import Volume
from sweeprun_volume.records_io import publish_record

from . import tracking
from .agreement import Pinned
from .channel import Sender
from .checkpointer import MARGIN_SECONDS, Checkpointer
from .commit import Place
from .curve import Curve
from .foreign import OUTSIDE_DIRECTORY, ForeignCheckpoints, checkpoint_directory
from .log import say
from .ranks import PeerLostError, Ranks
from .start import VOLUME_ERRORS
from .state import check_names, items
from .stop import StopFlag, StopTogether
from .tracking import Tracker

if TYPE_CHECKING:
    from .sharded import ShardedState

TELL_SECONDS = 0.2
"""Between two steps that the entrypoint is told of."""
COMPLETE_SECONDS = 30.0
"""How long a volume may refuse the record of completion."""
MAX_CONFIG_BYTES = 1 << 20
OUTSIDE = "outside-sweeprun"
TRACKING = "tracking"
REFUSE = "refuse"
DROP_PER_RANK = "drop_per_rank"

_begun = False


class NotCompletedError(RuntimeError):
    """The record of completion could not be written; raised on every rank. The run is not complete."""


def begin(*, timeout_seconds: float) -> Run:
    """See sweeprun_trainer.current()."""
    global _begun  # noqa: PLW0603 - signals and W&B belong to the process, so does this
    if _begun:
        raise RuntimeError("sweeprun_trainer.current() was called twice: keep what it returned")
    environment = RunEnvironment.decode(os.environ) if os.environ.get(RUN_ID) else None
    ranks = Ranks(timeout_seconds=timeout_seconds)
    if ranks.world == 1 and os.environ.get("WORLD_SIZE", "1") != "1":
        # each would take itself for rank 0, and commit, and complete, for all of them
        raise RuntimeError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} and torch.distributed has one rank: call "
            "sweeprun_trainer.current() after torch.distributed.init_process_group()"
        )
    stop = StopFlag()
    stop.install()
    run = Run(environment, ranks, stop)
    run.announce()
    _begun = True
    return run


class Run:
    """Made by sweeprun_trainer.current()."""

    def __init__(self, environment: Optional[RunEnvironment], ranks: Ranks, stop: StopFlag) -> None:
        self._environment = environment
        self._ranks = ranks
        self._stop = stop
        self._sender = Sender(os.environ)
        self._told_at = 0.0
        self._volume = Volume(environment.run_dir if environment is not None else os.getcwd())
        self._tracker = Tracker(None, attempt=self.attempt)
        self._curve: Optional[Curve] = None
        self._checkpointers: list[Checkpointer] = []
        self._together = StopTogether(stop, ranks)

    @property
    def managed(self) -> bool:
        """Whether a SweepRun owns this process."""
        return self._environment is not None

    @property
    def attempt(self) -> int:
        return self._environment.attempt if self._environment is not None else 0

    @property
    def directory(self) -> str:
        """Absolute path of the run directory; the working directory outside a SweepRun."""
        return self._volume.root

    @property
    def config_file(self) -> Optional[str]:
        """Absolute path of the configuration file, the same bytes in every attempt; None where the run has none."""
        return self._environment.config_file if self._environment is not None else None

    def announce(self) -> None:
        """From now on only complete() completes the run: an exit code says less. Collective."""
        environment = self._environment
        if environment is None:
            return
        problem: Optional[str] = None
        if self._ranks.leads:
            record = LibraryRecord(epoch=environment.epoch, world_size=self._ranks.world)
            try:
                publish_record(self._volume, RunLayout("").library(environment.epoch), record)
            except Exception as error:  # noqa: BLE001 - whatever it is: the others wait to hear of it
                problem = str(error) or type(error).__name__
        problem = self._ranks.share(problem)
        if problem is not None:  # before the first step: nothing is lost by failing closed
            raise RuntimeError(f"the use of the library cannot be recorded in {self.directory}: {problem}")

    def track(self, config: Optional[Mapping[str, Any]] = None, **settings: Any) -> Tracker:
        """The W&B run of this SweepRun. Call it on every rank, before checkpointer(); rank 0 alone speaks to W&B.

        What is logged is kept on the volume too, thinned: `sweeprun report --volume` draws it.

        Args:
            config: shown by W&B as the run's configuration.
            settings: for wandb.init, as name or tags; run, project, entity, group and sweep come by the environment.
        """
        self._tracker = tracking.begin(
            leads=self._ranks.leads,
            attempt=self.attempt,
            config=config or {},
            settings=settings,
            finish_seconds=self._finish_seconds(),
            directory=RunLayout(self.directory).wandb(self._environment.epoch) if self._environment else None,
            tell=self._sender.send,
        )
        if self._environment is not None and self._ranks.leads:
            self._curve = Curve(RunLayout(self.directory).curve(self._environment.epoch))
            self._tracker.heard = self._curve.add
        return self._tracker

    def checkpointer(
        self,
        shared: Optional[Mapping[str, Any]] = None,
        per_rank: Optional[Mapping[str, Any]] = None,
        *,
        sharded: Optional[Mapping[str, Any]] = None,
        when_world_changes: str = REFUSE,
    ) -> Checkpointer:
        """Commits and restores these objects. Collective.

        Each is a Stateful (with state_dict and load_state_dict), a generator (torch.Generator, random.Random,
        numpy.random.Generator) or a dictionary of plain values. They are restored in the order: sharded, shared,
        per_rank, and last the generators that are used without being named, which are added by themselves.

        Args:
            shared: the same on every rank (model, optimizer, scheduler, scaler of data parallel training): rank 0
                writes them, every rank reads them. One file each, named after the key.
            per_rank: different on every rank (data loader, generators). One file each for every rank.
            sharded: cut over the ranks (a model of `fully_shard`, its optimizer, its average): each rank writes its
                part, by torch.distributed.checkpoint.
            when_world_changes: what restore() does where another number of ranks wrote the checkpoint: "refuse", or
                "drop_per_rank": load `shared` and `sharded`, leave `per_rank` and the generators as the script made
                them. That is not exact.

        Raises:
            ValueError, TypeError: a name or an object cannot be part of a checkpoint.
        """
        environment = self._environment
        if when_world_changes not in (REFUSE, DROP_PER_RANK):
            raise ValueError(f"when_world_changes is {when_world_changes!r}, neither {REFUSE!r} nor {DROP_PER_RANK!r}")
        shared, mine, cut = dict(shared or {}), dict(per_rank or {}), dict(sharded or {})
        if TRACKING in (*shared, *mine, *cut):
            raise ValueError(f"{TRACKING!r} cannot name a part of a checkpoint: the rows for W&B are kept under it")
        check_names([*shared, *mine, *cut])
        place, pinned = self._place(environment)
        checkpointer = Checkpointer(
            place,
            self._ranks,
            items({**shared, TRACKING: self._tracker}, mine, rank=self._ranks.rank),
            pinned=pinned,
            sender=self._sender,
            leave=self._tracker.finish,
            fenced=_leave_fenced,
            grace_left=self._grace_left,
            sharded=_sharded(cut) if cut else None,
            drop_per_rank=when_world_changes == DROP_PER_RANK,
        )
        self._checkpointers.append(checkpointer)
        return checkpointer

    def _place(self, environment: Optional[RunEnvironment]) -> tuple[Place, Pinned]:
        if environment is None:
            epoch = self._ranks.share(self._epoch_outside() if self._ranks.leads else 0)
            place = Place(self._volume, OUTSIDE, epoch, OUTSIDE_DIRECTORY, fenced=False)
            return place, Pinned(OUTSIDE, epoch, 0, None, None, None)
        directory = os.path.relpath(environment.checkpoint_dir, environment.run_dir)
        place = Place(
            self._volume, environment.run_id, environment.epoch, directory, config_digest=self._config_digest()
        )
        return place, Pinned.of(environment)

    def _grace_left(self) -> Optional[float]:
        """Seconds; None where nobody told this process to stop, or nobody will end it."""
        if self._environment is None or not self._stop.is_set:
            return None
        return self._environment.grace_seconds - self._stop.seconds

    def foreign_checkpoints(self) -> ForeignCheckpoints:
        """For checkpoints that another library writes and reads. Outside a SweepRun they go where its own would."""
        environment = self._environment
        pinned = Pinned(OUTSIDE, 0, 0, None, None, None) if environment is None else Pinned.of(environment)
        volume = Volume(checkpoint_directory())
        return ForeignCheckpoints(volume, self._ranks, self._sender, pinned, leave=self._tracker.finish)

    def should_stop(self, step: int) -> bool:
        """Whether training was told to stop, on any rank; the same answer on all ranks. Also tells how far training is.

        Collective: call it on every rank after the same steps, each or some. Ranks ask each other every LOOK_SECONDS,
        and take the answer some milliseconds later, at calls that they have agreed on before; between these a call
        costs microseconds.
        """
        now = time.monotonic()
        if now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            self._sender.send({"step": int(step)})  # NumPy's integers and torch's are none to JSON
        return self._together.should_stop()

    def finish(self, exit_code: int) -> int:
        """Leave before the end: W&B gets what it lacks, and keeps the run open. Returns the code, for sys.exit.

        A save in the background is waited for, within the grace.
        """
        left = self._grace_left()
        try:
            for checkpointer in self._checkpointers:
                checkpointer.wait(None if left is None else max(0.0, left - MARGIN_SECONDS))
        except PeerLostError as error:  # the process leaves in any case, and W&B has to be told
            say(f"the save in the background is not committed: {error}")
        self._close_curve()
        self._tracker.finish(exit_code)
        return exit_code

    def complete(self, metrics: Optional[Mapping[str, Any]] = None, *, step: Optional[int] = None) -> None:
        """Training is done, on every rank. Collective: returns when that is recorded, and no save is outstanding.

        Args:
            metrics: for status.result; at most 32, numbers or texts of at most 64 characters. What does not fit is left
                out with a word in the log: it must not keep a run from being complete.

        Raises:
            NotCompletedError: on every rank, if it could not be recorded.
        """
        step = None if step is None else int(step)
        told = _reportable(metrics or {})
        for checkpointer in self._checkpointers:
            checkpointer.wait()
        self._ranks.gather(step)  # all have come this far
        self._tracker.summarize({f"result/{name}": value for name, value in (metrics or {}).items()})
        self._close_curve()
        self._tracker.finish(0)
        if self._environment is None:
            return
        record = CompleteRecord(epoch=self._environment.epoch, world_size=self._ranks.world, step=step, metrics=told)
        problem = self._ranks.share(self._publish(record) if self._ranks.leads else None)
        if problem is not None:
            raise NotCompletedError(f"the completion of the run cannot be recorded: {problem}")
        self._sender.send({**({} if step is None else {"step": step}), "completed": True})

    def _publish(self, record: CompleteRecord) -> Optional[str]:
        """The problem, after trying for COMPLETE_SECONDS."""
        problem: Optional[str] = None

        def settled() -> bool:
            nonlocal problem
            path = RunLayout("").completion(record.epoch)
            try:
                published = publish_record(self._volume, path, record)
            except Exception as error:  # noqa: BLE001 - as above
                problem = str(error) or type(error).__name__
                say(f"the completion of the run cannot be recorded yet: {problem}")
                return False
            problem = None if published else f"{path} is there already, and says something else"
            return True

        Clock().wait_for(settled, seconds=COMPLETE_SECONDS)
        return problem

    def _close_curve(self) -> None:
        if self._curve is not None:
            self._curve.close()

    def _finish_seconds(self) -> float:
        """A stopped process has its grace, and the end record comes after W&B."""
        if self._environment is None:
            return tracking.FINISH_SECONDS
        return min(tracking.FINISH_SECONDS, max(5.0, self._environment.grace_seconds / 3))

    def _epoch_outside(self) -> int:
        """One that no earlier start in this directory has used: their checkpoints stay, and do not bar ours."""
        try:
            found = [parse_step_name(entry.name) for entry in self._volume.entries(OUTSIDE_DIRECTORY)]
        except VOLUME_ERRORS:
            return 1  # saving will say what is wrong
        return 1 + max((name[1] for name in found if name is not None), default=0)

    def _config_digest(self) -> Optional[str]:
        path = self.config_file
        if path is None:
            return None
        data = self._volume.read(os.path.relpath(path, self.directory), limit=MAX_CONFIG_BYTES)
        return digest_of(data) if data is not None else None


def _sharded(objects: Mapping[str, Any]) -> ShardedState:
    from .sharded import ShardedState  # torch.distributed.checkpoint takes a second to import

    return ShardedState(objects)


def _leave_fenced(later: int) -> NoReturn:
    """At once, as the entrypoint does it: a polite end would close the W&B run that the later attempt writes."""
    say(f"epoch {later} was claimed: this attempt is over")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(ExitCode.FENCED))


def _reportable(metrics: Mapping[str, Any]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for key, value in metrics.items():
        try:
            name, text = str(key), str(value)
        except Exception as error:  # noqa: BLE001 - user code; the other ranks are on their way to complete()
            say(f"a metric is not reported: {type(error).__name__}: {error}")
            continue
        if len(name) > MAX_METRIC_LENGTH or len(kept) == MAX_METRICS:
            say(f"metric {name[:MAX_METRIC_LENGTH]!r} is not reported: at most {MAX_METRICS}, with short names")
            continue
        kept[name] = text[:MAX_METRIC_LENGTH]
    return kept
