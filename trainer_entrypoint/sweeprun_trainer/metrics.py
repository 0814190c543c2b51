"""What Prometheus may ask of a training pod. Which run it is stands in labels of one series, to be joined on."""

from __future__ import annotations

from sweeprun_protocol.frozen import dataclass

from .progress import Snapshot
from .start import Place


@dataclass(frozen=True)
class Metric:
    name: str
    help: str
    labels: tuple[str, ...] = ()


INFO = Metric(
    "sweeprun_trainer_info",
    "Always 1; the labels say which run, slot and attempt",
    ("run_id", "sweep", "slot", "attempt"),
)
EPOCH = Metric("sweeprun_trainer_epoch", "Epoch of the attempt on the volume")
STEP = Metric("sweeprun_trainer_step", "Newest step seen; absent before the first one")
COMMITTED = Metric("sweeprun_trainer_committed_step", "Step of the newest checkpoint that is committed")
BASE = Metric("sweeprun_trainer_base_step", "Step of the checkpoint that the attempt went on from; absent: step 0")
FIRST_STEP = Metric("sweeprun_trainer_first_step_seconds", "From the start of the command to its first step, seconds")
SAVE = Metric("sweeprun_trainer_save_seconds", "How long training waited for the library's newest save, seconds")
TRACKED = Metric("sweeprun_trainer_tracked", "1 where W&B takes what is logged, 0 where not; absent: nothing is known")
METRICS = (INFO, EPOCH, STEP, COMMITTED, BASE, FIRST_STEP, SAVE, TRACKED)


def metrics_body(place: Place, now: Snapshot) -> bytes:
    """In the text format of Prometheus. Labels need no escapes: run IDs, sweep names and slots hold no quotes."""
    run = place.run
    told = (run.run_id, run.sweep_name, place.pod.slot, str(run.attempt))
    labels = ",".join(f'{name}="{value}"' for name, value in zip(INFO.labels, told))
    lines = [*_described(INFO), f"{INFO.name}{{{labels}}} 1"]
    values = (
        (EPOCH, run.epoch),
        (STEP, now.step),
        (COMMITTED, now.committed_step),
        (BASE, run.resume_step),
        (FIRST_STEP, now.first_step_seconds),
        (SAVE, now.save_seconds),
        (TRACKED, None if now.tracked is None else int(now.tracked)),
    )
    for metric, value in values:
        if value is not None:
            lines += [*_described(metric), f"{metric.name} {value}"]
    return ("\n".join(lines) + "\n").encode()


def _described(metric: Metric) -> list[str]:
    return [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} gauge"]
