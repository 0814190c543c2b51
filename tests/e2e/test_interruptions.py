"""However an attempt is interrupted, the run goes on where it was: same ID, same configuration, same final state."""

import hashlib
import subprocess

import pytest
import yaml

from support.cluster import eventually
from support.story import example, replicas, with_arguments

KINDS = ["library", "plain"]
MIDDLE = 100


def begin(story, kind, name, *arguments):
    told = story(name).apply(with_arguments(example(kind, name), *arguments))
    told.wait_step(MIDDLE)
    return told


def check_continued(told, kind, undisturbed, *, cause, attempts=2):
    """What has to hold after any interruption in mid-training."""
    before = told.status
    configuration = hashlib.sha256(told.run_directory.joinpath("train_config_overrides.yaml").read_bytes())
    status = told.wait_complete()
    after = hashlib.sha256(told.run_directory.joinpath("train_config_overrides.yaml").read_bytes())
    assert status["runId"] == before["runId"]
    assert "previousRunIds" not in status or not status["previousRunIds"]
    assert after.hexdigest() == configuration.hexdigest()
    assert status["counts"]["attempts"] == attempts
    assert status["counts"]["resumes"] == attempts - 1
    assert status["counts"]["failures"] == 0
    interrupted, resumed = told.history()[0], told.history()[-1]
    assert interrupted["cause"] == cause, yaml.safe_dump(interrupted)
    assert resumed["outcome"] == "Resume"
    assert resumed["fromStep"] >= MIDDLE
    assert told.digest() == undisturbed(kind).digest(), "the final state differs from the undisturbed run's"
    return status


def check_wandb_continued(told, journal, *, attempts=2):
    run = journal(told.status["wandbRunId"])
    assert run.inserted_count == 1, "one W&B run"
    assert len(run.process_ids) == attempts
    check_every_step_once(run)


def check_every_step_once(run):
    assert run.duplicate_steps() == []
    assert run.missing_steps(run.steps[0], run.steps[-1]) == []
    assert run.overlapping_writers() == []
    assert run.conflicts == []
    assert run.exit_codes[-1] == 0


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


@pytest.mark.parametrize("kind", KINDS)
def test_kubectl_drain_of_the_node(kind, story, undisturbed, cluster):
    told = begin(story, kind, f"drained-{kind}")
    node = cluster.get("Pod", told.pod("worker-0"))["spec"]["nodeName"]
    home = str(cluster.kubeconfig.parent)  # kubectl keeps a cache there
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "PATH": kubectl_path(cluster), "HOME": home}
    drain = ["kubectl", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"]
    drain += ["--pod-selector", f"sweeprun.dev/name={told.name}"]
    try:
        subprocess.run(drain, env=environment, check=True, capture_output=True, timeout=150)
        told.wait(lambda status: status["history"][0].get("cause"), "the interruption has a cause")
    finally:
        subprocess.run(["kubectl", "uncordon", node], env=environment, check=True, capture_output=True, timeout=30)
    check_continued(told, kind, undisturbed, cause="EvictionAPI")


def kubectl_path(cluster):
    return f"{cluster.kubeconfig.parent / 'bin'}:/usr/local/bin:/usr/bin:/bin"
