"""Kueue needs an API server and no nodes: these tests have one of their own, and play what a bare one lacks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from support.cluster import Cluster
from support.control_plane import ControlPlane
from support.control_plane import running as control_plane_running
from support.kueue import Kueue, running
from support.manifests import make_claim, make_container, make_pod, make_sweeprun, make_template
from support.passes import Passes
from sweeprun_operator.builders.images import HelperImages
from sweeprun_operator.builders.manifests import Manifests
from sweeprun_operator.cluster.kubernetes_gateway import KubernetesGateway
from sweeprun_operator.controller.decisions import BoundDecisions

NAME = "run"
QUEUE = "gpu"


@pytest.fixture(scope="session")
def kueue() -> Iterator[Kueue]:
    with control_plane_running() as plane, running(plane) as found:
        yield found


@pytest.fixture
def plane(kueue: Kueue) -> ControlPlane:
    kueue.process.check()
    return kueue.plane


@pytest.fixture
def cluster(plane: ControlPlane) -> Cluster:
    made = plane.new_namespace("queues")
    made.create(make_claim())
    return made


@pytest.fixture
async def gateway(plane: ControlPlane) -> AsyncIterator[KubernetesGateway]:
    async with await KubernetesGateway.connect(str(plane.kubeconfig)) as made:
        yield made


@pytest.fixture
def tell(gateway: KubernetesGateway, cluster: Cluster) -> Callable[..., Passes]:
    """A run of a master and a worker with a GPU each, and with nothing else that they ask for."""

    def begin(**spec: object) -> Passes:
        template = make_template(pod=make_pod(make_container(resources={"limits": {"nvidia.com/gpu": "1"}})))
        template["metadata"] = {"labels": {"kueue.x-k8s.io/queue-name": QUEUE}}
        cluster.create(make_sweeprun(NAME, template=template, **spec))
        decisions = BoundDecisions(Manifests(HelperImages(image="sweeprun/operator:test")))
        return Passes(gateway, decisions, cluster, NAME)

    return begin
