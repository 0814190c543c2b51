"""What decisions ask of the builders; pure like them. The composition is handed in: core and builders do not know each
other."""

from __future__ import annotations

from typing import Any, Protocol

from sweeprun_operator.api.v1alpha1 import SweepRun

Manifest = dict[str, Any]


class Children(Protocol):
    """Everything is made from the run with the status that is written before the child is created."""

    def replicas(self, run: SweepRun) -> dict[str, int]:
        """Pods of each replica type of the template, by lower-case type."""

    def template_hash(self, run: SweepRun) -> str: ...

    def gpus(self, run: SweepRun) -> int:
        """GPUs of all pods of the template together."""

    def prepare_job(self, run: SweepRun, *, cluster_id: str) -> Manifest:
        """Job of prepare `status.current.prepare`."""

    def init_job(self, run: SweepRun, *, cluster_id: str) -> Manifest:
        """Job that runs sweep_init for that prepare and finishes it."""

    def survey_job(self, run: SweepRun, *, cluster_id: str) -> Manifest:
        """Job that reads ahead while the attempt of that prepare is drained."""

    def workload(self, run: SweepRun) -> Manifest:
        """PyTorchJob of attempt `status.current.attempt`, as decided in status."""
