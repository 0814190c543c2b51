"""For scripts that use the Trainer of transformers:

    arguments = TrainingArguments(output_dir=sweeprun_trainer.checkpoint_directory(), save_steps=500, ...)
    trainer = Trainer(args=arguments, callbacks=[SweepRunCallback()], ...)
    trainer.train(resume_from_checkpoint=sweeprun_trainer.resume_path())

Checkpoints are Trainer's own directories, with random generators of every rank. The callback adds what Trainer leaves
out (read in its source, 5.24): a stop that all ranks heed after the same step, and files that survive the node.
"""

# ruff: noqa: ARG002 - the hooks are called with all of it

from __future__ import annotations

import os
import sys
from typing import Any, Optional

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from . import STOPPED, checkpoint_directory
from .log import say
from .trainer_callback import RunCallback


class SweepRunCallback(RunCallback, TrainerCallback):
    """Stops and completes, and makes what Trainer saves durable."""

    BEGINNING = "Trainer.train() has begun"

    def __init__(self, *, completes: bool = True, timeout_seconds: float = 600.0) -> None:
        """
        Args:
            completes: the run is complete when train() has ended. False: the script calls `callback.run.complete()`
                itself, where more follows that an eviction must not cut off.
            timeout_seconds: see sweeprun_trainer.current().
        """
        super().__init__(completes=completes, timeout_seconds=timeout_seconds)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._join()
        self._known.agree(self._problem(args, state))

    def _problem(self, args: TrainingArguments, state: TrainerState) -> Optional[str]:
        directory = checkpoint_directory()
        if os.path.realpath(str(args.output_dir)) != os.path.realpath(directory):
            return f"output_dir is {args.output_dir}: set it to sweeprun_trainer.checkpoint_directory(), {directory}"
        if args.save_only_model:
            return "save_only_model leaves nothing to go on from"
        if getattr(args, "enable_jit_checkpoint", False):
            # it saves where one rank is told, three seconds later, and the others go on training
            return "enable_jit_checkpoint answers SIGTERM too, for one rank alone: leave it to SweepRunCallback"
        if state.global_step != self._known.step:
            return (
                f"this attempt starts after step {self._known.step}, and Trainer after step {state.global_step}: call "
                "trainer.train(resume_from_checkpoint=sweeprun_trainer.resume_path())"
            )
        return None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Trainer asks whether it is done after a step only: with max_steps within an epoch, a run that was interrupted
        # between its last checkpoint and its completion would train one step too many.
        if state.global_step >= state.max_steps and self._completes:
            say(f"step {state.global_step} is the last one: nothing is left to train")
            self._complete(state)
            sys.exit(0)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._stops = self.run.should_stop(state.global_step)
        if self._stops:
            control.should_save = True
            control.should_training_stop = True
            control.should_evaluate = False  # the grace is for saving

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._known.make_durable(f"checkpoint-{state.global_step}", step=state.global_step)
        if self._stops:
            # at once: what Trainer does at the end of training is not due
            sys.exit(self.run.finish(STOPPED))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._completes:
            self._complete(state)

    def _complete(self, state: TrainerState) -> None:
        metrics: dict[str, float] = {}
        for row in state.log_history:
            metrics.update({name: value for name, value in row.items() if name not in ("step", "epoch")})
        self.run.complete(metrics, step=state.global_step)
