"""What ends an attempt, or keeps it from starting, though no node is lost: each is told apart, and counted once."""

import pytest

from support.cluster import eventually
from support.continuation import EARLY, MIDDLE, SLOWLY, begin, check_continued, pace
from support.nodes import execute
from support.story import example, named, replicas, with_arguments


def within(told, slot, command):
    """Run a shell line in a training container, as its program would."""
    pod = ["kubectl", "exec", "-n", told.cluster.namespace, told.pod(slot), "-c", "pytorch"]
    execute(told.cluster, *pod, "--", "/bin/sh", "-c", command)


def test_a_container_that_writes_more_than_its_storage_limit(story, undisturbed):
    name = "littering"
    manifest = with_arguments(example("plain", name), *SLOWLY)
    for replica in replicas(manifest):
        named(replica["template"]["spec"], "pytorch")["resources"]["limits"]["ephemeral-storage"] = "48Mi"
    told = story(name).apply(manifest)
    told.wait_step(EARLY)
    pace(told)
    within(told, "worker-0", "head -c 96M /dev/zero >/tmp/litter")
    check_continued(told, "plain", undisturbed, cause="StorageLimit", counted="failures", since=EARLY)
    assert "ephemeral" in told.history()[0]["evidence"]


def test_a_pod_that_runs_longer_than_its_own_deadline(story, undisturbed):
    told = begin(story, "plain", "overdue")
    told.cluster.patch("Pod", told.pod("worker-0"), {"spec": {"activeDeadlineSeconds": 1}})
    check_continued(told, "plain", undisturbed, cause="DeadlineExceeded", counted="failures")


def test_a_run_that_has_used_up_its_time_ends_and_is_removed_later_without_its_checkpoints(story):
    told = begin(story, "plain", "out-of-time")
    told.cluster.patch("SweepRun", told.name, {"spec": {"limits": {"activeDeadlineSeconds": 1}}})
    assert told.wait_condition("Failed")["reason"] == "ActiveDeadlineExceeded"
    assert told.status["counts"]["attempts"] == 1
    assert told.history()[0]["cause"] == "DeadlineExceeded"
    saved = told.checkpoints()
    assert saved
    told.cluster.patch("SweepRun", told.name, {"spec": {"ttlSecondsAfterFinished": 1}})
    eventually(lambda: told.cluster.get("SweepRun", told.name) is None, "its object is removed", timeout=60)
    assert all(path.exists() for _, _, path in saved)


def test_an_image_that_cannot_be_pulled(story, undisturbed):
    """Found by the attempt after an eviction: the template was changed meanwhile."""
    told = begin(story, "plain", "imageless")
    right = told.run["spec"]["template"]
    wrong = example("plain", told.name)
    worker = wrong["spec"]["template"]["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    named(worker, "pytorch")["image"] = "sweeprun.invalid/trainer:none"
    change(told, template=wrong["spec"]["template"])
    told.cluster.evict(told.pod("master-0"))
    eventually(lambda: unpulled(told, "a1-worker-0"), "the image of the next attempt cannot be pulled", timeout=120)
    lose_patience(told, template=right)
    check_ended_by(told, undisturbed, "EvictionAPI", "NeverStarted")
    assert "worker-0" in told.history()[1]["evidence"]
    assert "Pull" in told.history()[1]["evidence"]


def unpulled(told, pod):
    found = told.cluster.get("Pod", f"{told.name}-{pod}") or {}
    containers = found.get("status", {}).get("containerStatuses", [])
    return any("Pull" in item["state"].get("waiting", {}).get("reason", "") for item in containers)


def change(told, **spec):
    told.cluster.patch("SweepRun", told.name, {"spec": spec})


def lose_patience(told, **spec):
    """The attempt has to run now, or has never started; the one after it gets the time that it needs."""
    change(told, limits={"startTimeoutSeconds": 1})
    told.wait(lambda status: status["counts"]["neverStarted"] == 1, "the attempt never started")
    change(told, limits={"startTimeoutSeconds": 600}, **spec)


def check_ended_by(told, undisturbed, *causes):
    """Each of the causes ended one attempt, the next one goes on from where the first was."""
    run_id = told.status["runId"]
    status = told.wait_complete()
    assert status["runId"] == run_id
    assert [attempt["cause"] for attempt in told.history()] == [*causes, "Completed"]
    assert (status["counts"]["attempts"], status["counts"]["resumes"]) == (len(causes) + 1, len(causes))
    assert (status["counts"]["disruptions"], status["counts"]["failures"]) == (1, 0)
    assert status["counts"]["neverStarted"] == causes.count("NeverStarted")
    assert all(attempt["fromStep"] >= MIDDLE for attempt in told.history()[1:])
    assert told.digest() == undisturbed("plain").digest()


@pytest.fixture
def places(cluster):
    """Gives nodes a label, as many as asked for: what selects it runs on those and nowhere else."""
    given = []

    def give(label, count):
        workers = cluster.list("Node", selector="!node-role.kubernetes.io/control-plane,!sweeprun.test/mortal")
        for number, node in enumerate(workers):
            name = node["metadata"]["name"]
            given.append((name, label))
            cluster.patch("Node", name, {"metadata": {"labels": {label: "yes" if number < count else None}}})

    yield give
    for name, label in given:
        cluster.patch("Node", name, {"metadata": {"labels": {label: None}}})


def placed(story, places, name, *bound):
    """A run in its training, of which some replicas need a labelled node."""
    label = f"sweeprun.test/{name}"
    manifest = with_arguments(example("plain", name), "--step-seconds", "0.2")
    for kind in bound:
        replica = manifest["spec"]["template"]["spec"]["pytorchReplicaSpecs"][kind]
        replica["template"]["spec"]["nodeSelector"] = {label: "yes"}
    manifest["spec"]["helperPods"] = {"nodeSelector": {}}
    places(label, 2)
    told = story(name).apply(manifest)
    told.wait_step(MIDDLE)
    pace(told)
    return told, label


def next_pods(told):
    """Of attempt 1."""
    uid = told.run["metadata"]["uid"]
    return told.cluster.list("Pod", selector=f"sweeprun.dev/uid={uid},sweeprun.dev/role=attempt,sweeprun.dev/number=1")


def unscheduled(told):
    return [pod for pod in next_pods(told) if reason_of(pod, "PodScheduled") == "Unschedulable"]


def reason_of(pod, kind):
    return next((item.get("reason") for item in pod["status"].get("conditions", []) if item["type"] == kind), None)


def running(told):
    return [pod for pod in next_pods(told) if pod["status"]["phase"] == "Running"]


def test_pods_that_cannot_be_scheduled_for_a_while(story, undisturbed, places):
    told, label = placed(story, places, "crowded-out", "Master", "Worker")
    places(label, 0)
    told.cluster.evict(told.pod("worker-0"))
    eventually(lambda: len(unscheduled(told)) == 2, "no pod of the next attempt is scheduled", timeout=120)
    places(label, 2)
    check_continued(told, "plain", undisturbed, cause="EvictionAPI")


def test_half_of_the_pods_scheduled_is_no_start(story, undisturbed, places):
    told, label = placed(story, places, "half-placed", "Worker")
    places(label, 0)
    told.cluster.evict(told.pod("worker-0"))
    eventually(lambda: len(unscheduled(told)) == 1 and len(running(told)) == 1, "one of two pods runs", timeout=120)
    lose_patience(told)
    places(label, 2)
    check_ended_by(told, undisturbed, "EvictionAPI", "NeverStarted")
    assert told.history()[1]["evidence"].startswith("1 of 2 pods ran within 1 s")
    assert "is not scheduled" in told.history()[1]["evidence"]
