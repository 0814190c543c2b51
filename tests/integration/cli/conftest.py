"""`sweeprun` in this process, on a real API server; statuses are written through the API, and no pod runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from support.cluster import Cluster
from support.manifests import make_sweeprun
from support.shown import shown_status
from sweeprun_cli.__main__ import app

Raw = dict[str, Any]


@dataclass(frozen=True)
class Shell:
    cluster: Cluster

    def __call__(self, *arguments: str) -> Any:
        """The result of `sweeprun ARGUMENTS` in the test's namespace."""
        where = ("--kubeconfig", str(self.cluster.kubeconfig), "-n", self.cluster.namespace)
        return CliRunner().invoke(app, [*arguments, *where])

    def make(self, name: str = "digits-lr-0", *, status: Raw | None = None, **spec: Any) -> None:
        self.cluster.create(make_sweeprun(name, **spec))
        self.tell(name, shown_status() if status is None else status)

    def tell(self, name: str, status: Raw) -> None:
        """Write the status, as the operator does."""
        self.cluster.patch("SweepRun", name, {"status": status}, subresource="/status")


@pytest.fixture
def shell(cluster: Cluster) -> Shell:
    return Shell(cluster)
