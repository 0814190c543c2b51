"""All builders of an installation together, as decisions use them."""

from __future__ import annotations

from sweeprun_operator.api.v1alpha1 import SweepRun

from . import helper_job, metadata, pytorchjob, replicas
from .images import HelperImages
from .metadata import Manifest


class Manifests:
    def __init__(self, images: HelperImages) -> None:
        self._images = images

    def replicas(self, run: SweepRun) -> dict[str, int]:
        return replicas.counts(run)

    def template_hash(self, run: SweepRun) -> str:
        return metadata.template_hash(run)

    def gpus(self, run: SweepRun) -> int:
        return replicas.gpus(run)

    def prepare_job(self, run: SweepRun, *, cluster_id: str) -> Manifest:
        return helper_job.prepare_job(run, self._images, cluster_id=cluster_id)

    def init_job(self, run: SweepRun, *, cluster_id: str) -> Manifest:
        return helper_job.init_job(run, self._images, cluster_id=cluster_id)

    def survey_job(self, run: SweepRun, *, cluster_id: str) -> Manifest:
        return helper_job.survey_job(run, self._images, cluster_id=cluster_id)

    def workload(self, run: SweepRun) -> Manifest:
        return pytorchjob.pytorchjob(run, self._images)
