"""The chart with nothing set and with everything on; upgraded, and taken away, while a run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.cluster import Cluster, Raw, RefusedError, eventually
from support.helm import install, package, uninstall
from support.manifests import make_sweeprun
from support.monitoring import definitions
from support.story import example, with_arguments

from .conftest import NAMESPACE, trainer_pods

pytestmark = pytest.mark.alone

SYSTEM = "sweeprun-system"
IMAGE = ("image.repository=sweeprun/operator", "image.tag=dev")
"""The image that hack/cluster.sh deploys."""
USUAL = (*IMAGE, f"watch.namespaces={{{NAMESPACE}}}")
EVERYTHING = (
    *("metrics.serviceMonitor.enabled=true", "metrics.rules.enabled=true", "metrics.dashboards.enabled=true"),
    *("networkPolicy.operator.enabled=true", "networkPolicy.runs.enabled=true", "admission.serviceAccounts={trainer}"),
)
OF_THE_CHART = (
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
)


@pytest.fixture
def helm(cluster: Cluster) -> Iterator[Callable[..., None]]:
    """Installs or upgrades the release that the other tests use, and puts it back as it was."""

    def change(*sets: str, **options: object) -> None:
        install(cluster.kubeconfig, *USUAL, *sets, namespace=SYSTEM, **options)  # type: ignore[arg-type]
        wait_rolled_out(cluster.in_namespace(SYSTEM))

    yield change
    change()


def wait_rolled_out(system: Cluster, name: str = "sweeprun") -> None:
    """The pods of the newest template are ready, and no others are left."""

    def done() -> bool:
        deployment = system.get("Deployment", name)
        status = (deployment or {}).get("status", {})
        return (
            deployment is not None
            and status.get("observedGeneration") == deployment["metadata"]["generation"]
            and status.get("updatedReplicas") == status.get("replicas") == status.get("readyReplicas") == 1
        )

    eventually(done, f"{name} is rolled out in {system.namespace}", timeout=120)


def chart_of(cluster: Cluster) -> str:
    deployment = cluster.in_namespace(SYSTEM).get("Deployment", "sweeprun")
    assert deployment is not None
    return str(deployment["metadata"]["labels"]["helm.sh/chart"])


def uids(pods: list[Raw]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def test_with_nothing_set_it_serves_its_own_namespace(cluster):
    mine = cluster.in_namespace("sweeprun-defaults")
    install(cluster.kubeconfig, *IMAGE, "crds.enabled=false", namespace=mine.namespace)
    try:
        wait_rolled_out(mine)
        mine.ensure(make_sweeprun("nowhere"))

        def said() -> Raw | None:
            run = mine.get("SweepRun", "nowhere") or {}
            conditions = run.get("status", {}).get("conditions", [])
            return next((one for one in conditions if one["reason"] == "ClaimMissing"), None)

        eventually(said, "its SweepRun is judged", timeout=60)
    finally:
        mine.delete("SweepRun", "nowhere")
        uninstall(cluster.kubeconfig, namespace=mine.namespace)


def test_a_run_outlives_an_upgrade_and_goes_on_after_the_chart_was_taken_away(
    helm, story, undisturbed, cluster, tmp_path
):
    """One run through all of it: an older chart, everything on, nothing at all while a pod is evicted, back again."""
    for definition in definitions():
        cluster.ensure(definition)
    helm("operator.workers=2", "admission.enabled=false", chart=package(tmp_path, version="0.0.1"))
    assert chart_of(cluster) == "sweeprun-0.0.1"
    told = story("chart-run").apply(with_arguments(example("library", "chart-run"), "--step-seconds=0.3"))
    told.wait_step(40)
    before = uids(trainer_pods(cluster, told.run))

    helm(*EVERYTHING)
    assert chart_of(cluster) != "sweeprun-0.0.1"
    forbidden = make_sweeprun("forbidden")
    forbidden["spec"]["template"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["hostNetwork"] = True
    with pytest.raises(RefusedError, match="hostNetwork"):
        cluster.create(forbidden)
    assert uids(trainer_pods(cluster, told.run)) == before
    assert told.status["counts"]["attempts"] == 1

    uninstall(cluster.kubeconfig, namespace=SYSTEM)
    for path in OF_THE_CHART:
        names = [one["metadata"]["name"] for one in cluster.call("GET", path)["items"]]
        assert not [name for name in names if name.startswith(SYSTEM)], path
    assert cluster.get("CustomResourceDefinition", "sweepruns.sweeprun.dev")
    assert uids(trainer_pods(cluster, told.run)) == before
    cluster.evict(told.pod("worker-0"))

    helm()
    status = told.wait_complete()
    counts = status["counts"]
    assert (counts["attempts"], counts["resumes"], counts["disruptions"]) == (2, 1, 1)
    assert told.digest() == undisturbed("library").digest()
