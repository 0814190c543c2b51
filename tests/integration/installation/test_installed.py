"""What Helm leaves on a cluster, and what it says to whoever installed it."""

from __future__ import annotations

import pytest

from support.helm import ChartError, install
from support.monitoring import GROUP, KINDS

from .conftest import SYSTEM


def test_the_notes_say_what_to_do_next(installed):
    assert "kubectl -n sweeprun-system rollout status deployment/sweeprun" in installed.notes
    assert "install it before the operator starts" in installed.notes  # crds.enabled=false
    assert "the right to create PyTorchJobs, Jobs and pods" in installed.notes
    assert "Nobody is alerted" not in installed.notes


@pytest.mark.parametrize("plural", KINDS.values())
def test_prometheus_is_told(plural, installed):
    path = f"/apis/{GROUP}/v1/namespaces/{SYSTEM}/{plural}/sweeprun"
    assert installed.system.call("GET", path)["spec"]


def test_grafana_finds_the_dashboard(installed):
    (found,) = installed.system.list("ConfigMap", selector="grafana_dashboard=1")
    assert "sweeprun.json" in found["data"]


def test_the_api_server_takes_the_network_policies_as_they_are_meant(installed):
    path = f"/apis/networking.k8s.io/v1/namespaces/{installed.team.namespace}/networkpolicies"
    specs = {one["metadata"]["name"]: one["spec"] for one in installed.team.call("GET", path)["items"]}
    prepare, training = specs[f"{SYSTEM}.sweeprun.prepare"], specs[f"{SYSTEM}.sweeprun.training"]
    assert prepare["policyTypes"] == ["Ingress", "Egress"]
    assert training["policyTypes"] == ["Ingress"]
    assert [port.get("endPort") for port in training["ingress"][0]["ports"]] == [8798, 65535, 65535]


def test_a_crd_that_another_hand_installed_is_not_taken_over(installed):
    with pytest.raises(ChartError, match=r"sweepruns\.sweeprun\.dev.*cannot be imported"):
        install(installed.plane.kubeconfig, namespace="another-release")
