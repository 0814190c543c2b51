"""W&B by environment: the only way that also works inside sweeps."""

from __future__ import annotations

from sweeprun_operator.api.spec import WandbMode
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol.environ import HISTORY, PREVIOUS_WANDB_RUN, WANDB_RUN_ID
from sweeprun_protocol.layout import RunLayout

from .run_history import run_history

NOTES = "WANDB_NOTES"
"""The only variable that a script which knows nothing of us shows its link by; a template's own notes stand."""
_MODES = {WandbMode.ONLINE: "online", WandbMode.OFFLINE: "offline", WandbMode.DISABLED: "disabled"}


def wandb_environment(run: SweepRun, *, run_dir: str, epoch: int) -> dict[str, str]:
    """Nothing without spec.tracking. Resume is `allow`: `must` fails for a run that was created and never began."""
    if run.spec.tracking is None:
        return {}
    wandb = run.spec.tracking.wandb
    if wandb.mode is WandbMode.DISABLED:
        return {"WANDB_MODE": _MODES[wandb.mode]}
    previous = run.status.previous_wandb_run_id
    values = {
        HISTORY: run_history(run.status).encode(),
        WANDB_RUN_ID: run.status.wandb_run_id or run.status.run_id,
        PREVIOUS_WANDB_RUN: previous,
        NOTES: f"SweepRun {run.metadata.name}: the beginning of this run is in {previous}." if previous else None,
        "WANDB_RESUME": "allow",
        "WANDB_MODE": _MODES[wandb.mode],
        "WANDB_ENTITY": wandb.entity,
        "WANDB_PROJECT": wandb.project,
        "WANDB_RUN_GROUP": wandb.group,
        "WANDB_SWEEP_ID": wandb.sweep_id,
        "WANDB_DIR": RunLayout(run_dir).wandb(epoch) if wandb.mode is WandbMode.OFFLINE else None,
    }
    return {name: value for name, value in values.items() if value is not None}
