"""However an attempt is interrupted, the run goes on where it was: same ID, same configuration, same final state."""

import pytest

from support.cluster import eventually
from support.continuation import MIDDLE, begin, check_continued, check_wandb_continued, pace
from support.nodes import execute
from support.story import example, replicas

KINDS = ["library", "plain"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_evicted_through_the_eviction_api(kind, story, undisturbed, journal):
    told = begin(story, kind, f"evicted-{kind}")
    told.cluster.evict(told.pod("worker-0"))
    check_continued(told, kind, undisturbed, cause="EvictionAPI")
    if kind == "library":
        check_wandb_continued(told, journal)


@pytest.mark.parametrize("slot", ["master-0", "worker-0"])
def test_a_polite_save_with_exit_0_is_not_completion(slot, story, undisturbed, journal):
    told = begin(story, "library", f"polite-{slot}", "--polite-exit-code", "0")
    told.cluster.evict(told.pod(slot))
    check_continued(told, "library", undisturbed, cause="EvictionAPI")
    check_wandb_continued(told, journal)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_deleted_by_force_and_refilled_by_the_training_operator(kind, story, undisturbed):
    told = begin(story, kind, f"forced-{kind}")
    told.cluster.delete("Pod", told.pod("worker-0"), grace=0)
    status = told.wait(lambda status: status["counts"].get("resumes", 0) >= 1, "resumed")
    assert status["history"][0]["cause"] in ("PodLost", "PodReplaced")
    check_continued(told, kind, undisturbed, cause=status["history"][0]["cause"])


@pytest.mark.parametrize("kind", KINDS)
def test_preemption_by_a_pod_of_higher_priority(kind, story, undisturbed, cluster):
    resource = f"sweeprun.test/{kind}-gpu"
    for node in cluster.list("Node", selector="!node-role.kubernetes.io/control-plane"):
        cluster.patch(
            "Node", node["metadata"]["name"], {"status": {"capacity": {resource: "1"}}}, subresource="/status"
        )
    cluster.ensure(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": "urgent"},
            "value": 1000,
        }
    )
    manifest = example(kind, f"preempted-{kind}")
    for replica in replicas(manifest):
        replica["template"]["spec"]["containers"][0]["resources"].setdefault("limits", {})[resource] = "1"
    told = story(f"preempted-{kind}").apply(manifest)
    told.wait_step(MIDDLE)
    image = replicas(manifest)[0]["template"]["spec"]["containers"][0]["image"]
    intruder = urgent_pod(f"urgent-{kind}", image, resource)
    cluster.create(intruder)
    try:
        told.wait(lambda status: status["history"][0].get("cause"), "the interruption has a cause")
        eventually(lambda: cluster.get("Pod", f"urgent-{kind}")["status"]["phase"] == "Running", "it runs", timeout=120)
    finally:
        cluster.delete("Pod", f"urgent-{kind}", grace=0)
    check_continued(told, kind, undisturbed, cause="Preemption")


def urgent_pod(name, image, resource):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "priorityClassName": "urgent",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "urgent",
                    "image": image,
                    "command": ["sleep", "600"],
                    "resources": {"limits": {resource: "1"}},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


def test_kubectl_drain_of_the_node(story, undisturbed, cluster):
    told = begin(story, "plain", "drained-plain", "--step-seconds", "0.2")
    pace(told)
    node = cluster.get("Pod", told.pod("worker-0"))["spec"]["nodeName"]
    drain = ["kubectl", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"]
    drain += ["--pod-selector", f"sweeprun.dev/name={told.name}"]
    try:
        execute(cluster, *drain, timeout=150)
        told.wait(lambda status: status["history"][0].get("cause"), "the interruption has a cause")
    finally:
        execute(cluster, "kubectl", "uncordon", node)
    check_continued(told, "plain", undisturbed, cause="EvictionAPI")
