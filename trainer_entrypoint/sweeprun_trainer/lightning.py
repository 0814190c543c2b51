"""For scripts that use Lightning's Trainer:

    trainer = Trainer(callbacks=[SweepRunCallback(every_steps=500)], ...)
    trainer.fit(model, data, ckpt_path=sweeprun_trainer.resume_path())

Checkpoints are Lightning's own files. The callback adds what Lightning leaves out (read in its source, 2.6): the random
generators of all ranks, loader positions of ranks other than 0, a stop that all ranks heed after the same step, and a
commit that survives the node.
"""

# ruff: noqa: ARG002 - the hooks are called with all of it

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Optional

from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from . import STOPPED, checkpoint_directory, resume_path
from .log import say
from .stateful import RandomState
from .trainer_callback import RunCallback

KEY = "sweeprun"
"""In the checkpoint."""
_LOADER = "combined_loader"
"""Lightning's name for the state of its loaders, which it keeps of rank 0."""


class SweepRunCallback(RunCallback, Checkpoint):
    """Saves, stops and completes. Being a Checkpoint, it runs after other callbacks and stands for the default
    ModelCheckpoint; one that you add yourself keeps to its own directory."""

    BEGINNING = "Trainer.fit() has set up its processes"

    def __init__(self, *, every_steps: int, completes: bool = True, timeout_seconds: float = 600.0) -> None:
        """
        Args:
            every_steps: optimizer steps between two checkpoints; one more is saved at the end and when told to stop.
            completes: the run is complete when fit() has ended. False: the script calls `callback.run.complete()`
                itself, where more follows that an eviction must not cut off.
            timeout_seconds: see sweeprun_trainer.current().
        """
        if every_steps < 1:
            raise ValueError(f"every_steps is {every_steps}: a checkpoint is saved every 1, 2, ... steps")
        super().__init__(completes=completes, timeout_seconds=timeout_seconds)
        self._every = every_steps
        self._asked_at = 0
        self._saved_at = 0
        self._save_is_due = False
        self._kept: Optional[dict[str, Any]] = None
        """Of this rank, in the checkpoint that was loaded, until it is used."""
        self._beginning: Optional[dict[str, Any]] = None
        """Random state with which the epoch's iterator over the data was made."""
        self._iterator_is_new = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The ranks have joined, and nothing is loaded yet."""
        if stage != "fit":
            return
        self._join()
        # Its handler would take ours away, and broadcasts from within: a rank that is told alone would then hang, or
        # mix its message with the others' collectives.
        trainer._signal_connector.register_signal_handlers = _leave_signals_alone  # type: ignore[method-assign]
        self._known.agree()

    # -- saving and stopping -------------------------------------------------------------------------------------------

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step == self._asked_at:
            return  # gradients are being accumulated
        self._asked_at = step
        self._stops = self.run.should_stop(step)
        self._save_is_due = self._stops or self._save_is_due or step % self._every == 0
        # The last batch is followed by the epoch's validation: a checkpoint before it would go on behind it.
        if self._save_is_due and not _at_end_of_epoch(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._save_is_due:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._saved_at != trainer.global_step:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        step = trainer.global_step
        # of this attempt alone: no file that was verified for an earlier one is ever written over
        name = f"attempt-{self.run.attempt}-step-{step}.ckpt"
        trainer.save_checkpoint(os.path.join(checkpoint_directory(), f".{name}"))
        self._known.publish(f".{name}", name, step=step)
        self._saved_at, self._save_is_due = step, False
        if self._stops:
            sys.exit(self.run.finish(STOPPED))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._completes:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.run.complete(metrics, step=trainer.global_step)

    # -- state ---------------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._checkpoints is None:
            return  # outside fit()
        loaders = _fit_loop(checkpoint).get(_LOADER)
        mine = {"random": RandomState().state_dict(), "beginning": self._beginning, "loaders": loaders}
        checkpoint[KEY] = {"ranks": self._known.gather(mine), "endOfEpoch": _at_end_of_epoch(trainer)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not trainer.training:
            return
        kept: Optional[Mapping[str, Any]] = checkpoint.get(KEY)
        if kept is None:
            say("the checkpoint was written without SweepRunCallback: random generators start anew")
            return
        loop = _fit_loop(checkpoint)
        ranks = kept["ranks"]
        if len(ranks) != trainer.world_size:
            say(
                f"the checkpoint holds random generators and loader positions of {len(ranks)} ranks, "
                f"{trainer.world_size} are here: they start anew"
            )
            loop.pop(_LOADER, None)
            return
        loop.pop(_LOADER, None)  # see _make_iterator()
        self._kept = {**ranks[self._known.rank], "endOfEpoch": kept["endOfEpoch"]}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        asked, loaded = resume_path(), trainer.ckpt_path
        if asked is not None and (loaded is None or os.path.realpath(str(loaded)) != os.path.realpath(asked)):
            raise RuntimeError(
                f"this attempt starts from {asked}, and fit() was given {loaded}: call "
                "trainer.fit(..., ckpt_path=sweeprun_trainer.resume_path())"
            )
        self._asked_at = self._saved_at = trainer.global_step
        self._make_iterator(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._iterator_is_new:  # Lightning makes the next one now
            self._beginning = RandomState().state_dict()
        self._iterator_is_new = False

    def _make_iterator(self, trainer: Trainer) -> None:
        """Lightning has made the iterator over the data before it told the samplers of the epoch, and from random
        generators of which it keeps nothing: here it is made once more, as undisturbed training made it."""
        loop, kept = trainer.fit_loop, self._kept
        fetcher, combined = loop._data_fetcher, loop._combined_loader
        assert fetcher is not None, "made before on_train_start"
        assert combined is not None, "made before on_train_start"
        for loader in combined.flattened:
            _set_sampler_epoch(loader, trainer.current_epoch)
        within = kept is not None and not kept["endOfEpoch"]
        if kept is not None:
            RandomState().load_state_dict(kept["beginning" if within else "random"])
        self._beginning, self._iterator_is_new = RandomState().state_dict(), not within
        if kept is not None and within and kept["loaders"]:
            combined._load_state_dicts(kept["loaders"])
        iter(fetcher)
        self._kept = None
        if kept is None or not within:
            return
        if not kept["loaders"]:  # these cannot tell where they are: what was trained is left out
            for _ in range(loop.epoch_loop.batch_progress.current.ready):
                next(fetcher)
            fetcher.fetched = 0  # Lightning adds these by itself
        # all this has drawn from the generators; undisturbed training had done so before the checkpoint
        RandomState().load_state_dict(kept["random"])


def _leave_signals_alone() -> None:
    """In the place of Lightning's handlers."""


def _fit_loop(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = checkpoint["loops"]["fit_loop"]["state_dict"]
    return state


def _at_end_of_epoch(trainer: Trainer) -> bool:
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return progress.is_last_batch or progress.current.ready in (0, trainer.num_training_batches)
