"""The workload as its first attempt would be, for a server-side dry run before anything is created."""

from __future__ import annotations

from datetime import UTC, datetime

from sweeprun_operator.api.status import CheckpointStatus, Current, State, SweepRunStatus
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol.reasons import Outcome

from . import helper_job, pytorchjob
from .images import HelperImages
from .metadata import Manifest

_RUN_ID = "proof"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def proof(run: SweepRun, images: HelperImages) -> Manifest:
    """Raises ValueError, with a message for the user, where the spec allows no workload or no helper Job.

    Its name carries the newest attempt's number: that one may exist, and names are compared last.
    """
    known = run.status.current
    current = Current(
        attempt=known.attempt if known is not None else 0,
        prepare=0,
        state=State.STARTING,
        since=known.since if known is not None else _EPOCH,
        epoch=1,
        outcome=Outcome.RESUME,
    )
    checkpoint = CheckpointStatus(step=1, epoch=1, path="checkpoints/step-000000001.e1")
    status = SweepRunStatus(run_id=_RUN_ID, current=current, checkpoint=checkpoint)
    proved = run.model_copy(update={"status": status})
    helper_job.prepare_job(proved, images, cluster_id=_RUN_ID)
    if run.spec.init is not None:
        helper_job.init_job(proved, images, cluster_id=_RUN_ID)
    return pytorchjob.pytorchjob(proved, images)
