"""Decisions bound to the builders of an installation: core and builders do not know each other, this joins them."""

from __future__ import annotations

from datetime import UTC, datetime

from sweeprun_operator.api.acceptance import problems
from sweeprun_operator.api.status import CheckpointStatus, Current, State
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_operator.cluster.gateway import Raw
from sweeprun_operator.core.children import Children
from sweeprun_operator.core.decide import decide
from sweeprun_operator.core.observation import Claim, Observation
from sweeprun_operator.core.plan import Plan
from sweeprun_protocol.reasons import Format, Outcome, StartReason

_ANY_CLAIM = Claim(found=True, access_modes=("ReadWriteMany",))
"""The claim is judged by the decision: here it must not hide what the server says of the template."""
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_UNKNOWN = "unknown"
_CHECKPOINT = CheckpointStatus(step=1, epoch=1, path="checkpoints/step-000000001.e1", format=Format.SWEEPRUN)


class BoundDecisions:
    def __init__(self, children: Children) -> None:
        self._children = children

    def decide(self, observation: Observation) -> Plan:
        return decide(observation, self._children)

    def proof(self, run: SweepRun) -> Raw:
        """The workload of an attempt that resumes, as if prepare had answered; it is never created.

        Raises ValueError where our own rules or the builders refuse the spec: there is nothing to ask the server then.
        Its name carries the newest attempt's number: that one may exist, and names are compared last.
        """
        found = problems(run.spec, _ANY_CLAIM)
        if found:
            raise ValueError(found[0].message)
        current = run.status.current
        supposed = Current(
            attempt=current.attempt if current is not None else 0,
            prepare=current.prepare if current is not None else 0,
            state=State.STARTING,
            since=_LONG_AGO,
            epoch=1,
            outcome=Outcome.RESUME,
            reason=StartReason.NEWEST_CHECKPOINT,
            replicas=self._children.replicas(run),
        )
        status = run.status.model_copy(
            update={"current": supposed, "run_id": run.status.run_id or _UNKNOWN, "checkpoint": _CHECKPOINT}
        )
        proved = run.model_copy(update={"status": status})
        self._children.prepare_job(proved, cluster_id=_UNKNOWN)
        if run.spec.init is not None:
            self._children.init_job(proved, cluster_id=_UNKNOWN)
        return self._children.workload(proved)
