"""For training code: `run = sweeprun_trainer.current()`. Importing this needs neither torch nor wandb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from .loader import ResumableLoader as ResumableLoader
    from .run import Run

STOPPED = 143
"""Exit code of training that saved and left since it was told to: what a shell says of a process that SIGTERM ended."""


def current(*, timeout_seconds: float = 600.0) -> Run:
    """The run that this process trains, on every rank; collective, once, in the main thread.

    Call it after `torch.distributed.init_process_group`, where there is more than one rank. Outside a SweepRun it
    answers as well: checkpoints then go into ./checkpoints and nothing is resumed.

    Args:
        timeout_seconds: how long a rank waits for the others in a save or a vote before it gives up. A peer that was
            killed is noticed at once (0.03 s measured), one that hangs after this.

    Raises:
        EnvironError: the operator's environment contradicts itself.
        RuntimeError: not in the main thread, called twice, or before the ranks of WORLD_SIZE have joined.
    """
    from .run import begin  # torch comes with it, and the entrypoint does without

    return begin(timeout_seconds=timeout_seconds)


def checkpoint_directory() -> str:
    """Absolute path of the directory that this attempt writes checkpoints into; it may not exist yet."""
    from . import foreign

    return foreign.checkpoint_directory()


def resume_path() -> Optional[str]:
    """Absolute path of the checkpoint that this attempt starts from; None: it starts at step 0, as outside a SweepRun.

    For what loads checkpoints by itself, as Lightning's `ckpt_path` and transformers' `resume_from_checkpoint`; what
    the checkpointer of this library wrote is restored by it.
    """
    from . import foreign

    return foreign.resume_path()


def __getattr__(name: str) -> Any:
    if name == "ResumableLoader":
        from .loader import ResumableLoader  # as above

        return ResumableLoader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
