"""Decisions bound to the builders of an installation: core and builders do not know each other, this joins them."""

from __future__ import annotations

from sweeprun_operator.api.acceptance import problems
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_operator.builders import proof
from sweeprun_operator.builders.images import HelperImages
from sweeprun_operator.builders.manifests import Manifests
from sweeprun_operator.cluster.gateway import Raw
from sweeprun_operator.core.decide import decide
from sweeprun_operator.core.observation import Claim, Observation
from sweeprun_operator.core.plan import Plan

_ANY_CLAIM = Claim(found=True, access_modes=("ReadWriteMany",))
"""The claim is judged by the decision: here it must not hide what the server says of the template."""


class BoundDecisions:
    def __init__(self, images: HelperImages) -> None:
        self._images = images
        self._children = Manifests(images)

    def decide(self, observation: Observation) -> Plan:
        return decide(observation, self._children)

    def proof(self, run: SweepRun) -> Raw:
        """Raises ValueError where our own rules refuse the spec: there is nothing to ask the server then."""
        found = problems(run.spec, _ANY_CLAIM)
        if found:
            raise ValueError(found[0].message)
        return proof.proof(run, self._images)
