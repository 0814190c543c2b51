from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.cluster import Cluster
from support.control_plane import ControlPlane
from sweeprun_operator.builders.images import HelperImages
from sweeprun_operator.builders.manifests import Manifests
from sweeprun_operator.cluster.kubernetes_gateway import KubernetesGateway
from sweeprun_operator.controller.decisions import BoundDecisions


@pytest.fixture
async def gateway(control_plane: ControlPlane) -> AsyncIterator[KubernetesGateway]:
    async with await KubernetesGateway.connect(str(control_plane.kubeconfig)) as made:
        yield made


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    return cluster.namespace


@pytest.fixture
def kubeconfig(control_plane: ControlPlane) -> str:
    return str(control_plane.kubeconfig)


@pytest.fixture(scope="session")
def decisions() -> BoundDecisions:
    """The real ones, with the real builders."""
    return BoundDecisions(Manifests(HelperImages(image="sweeprun/operator:test")))
