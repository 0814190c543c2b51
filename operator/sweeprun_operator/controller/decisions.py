"""Decisions bound to the builders of an installation: core and builders do not know each other, this joins them."""

from __future__ import annotations

from datetime import UTC, datetime

from sweeprun_operator.api.acceptance import problems
from sweeprun_operator.api.status import Current, State
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_operator.cluster.gateway import Raw
from sweeprun_operator.core.children import Children
from sweeprun_operator.core.decide import decide
from sweeprun_operator.core.observation import Claim, Observation
from sweeprun_operator.core.plan import Plan
from sweeprun_protocol.reasons import Outcome, StartReason

_ANY_CLAIM = Claim(found=True, access_modes=("ReadWriteMany",))
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class BoundDecisions:
    def __init__(self, children: Children) -> None:
        self._children = children

    def decide(self, observation: Observation) -> Plan:
        return decide(observation, self._children)

    def proof(self, run: SweepRun) -> Raw:
        """The workload of an attempt as if prepare had answered: what it says of epochs is never created.

        Raises ValueError where our own rules refuse the spec: there is nothing to ask the server then.
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
            outcome=Outcome.FRESH,
            reason=StartReason.FIRST_START,
            replicas=self._children.replicas(run),
        )
        run_id = run.status.run_id or run.spec.run_id or run.metadata.name
        status = run.status.model_copy(update={"current": supposed, "run_id": run_id})
        return self._children.workload(run.model_copy(update={"status": status}))
