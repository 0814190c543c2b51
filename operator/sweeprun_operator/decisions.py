"""Decisions of one installation: the core with this installation's builders."""

from __future__ import annotations

from typing import Any

from .api.v1alpha1 import SweepRun
from .builders.images import HelperImages
from .builders.manifests import Manifests
from .builders.proof import proof
from .core.decide import decide
from .core.observation import Observation
from .core.plan import Plan


class InstalledDecisions:
    def __init__(self, images: HelperImages) -> None:
        self._images = images
        self._children = Manifests(images)

    def decide(self, observation: Observation) -> Plan:
        return decide(observation, self._children)

    def proof(self, run: SweepRun) -> dict[str, Any]:
        """The workload for a server-side dry run. Raises ValueError with a message for the user."""
        return proof(run, self._images)
