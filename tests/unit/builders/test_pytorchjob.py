"""The PyTorchJob of an attempt: what is overridden, what is added, and that all else is as the user wrote it."""

from __future__ import annotations

import copy
import json

import pytest

from support.decided import BUILD, IMAGES, decided, of_container, pod_of, trainer_of
from support.manifests import UID, make_container, make_pod, make_template
from sweeprun_operator.builders.images import HelperImages
from sweeprun_operator.builders.manifests import Manifests

UNREACHABLE = "node.kubernetes.io/unreachable"
NOT_READY = "node.kubernetes.io/not-ready"


def workload(**spec):
    return BUILD.workload(decided(**spec))


# -- overridden --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["Always", "OnFailure", "ExitCode", "Never", None])
def test_no_replica_is_restarted_by_training_operator(given):
    template = make_template()
    for replica in template["spec"]["pytorchReplicaSpecs"].values():
        replica["restartPolicy"] = given
    replicas = workload(template=template)["spec"]["pytorchReplicaSpecs"]
    assert {replica["restartPolicy"] for replica in replicas.values()} == {"Never"}


@pytest.mark.parametrize("given", [{}, {"cleanPodPolicy": "None"}, {"cleanPodPolicy": "All"}])
def test_survivors_are_stopped_and_finished_pods_stay(given):
    assert workload(template=make_template(runPolicy=given))["spec"]["runPolicy"]["cleanPodPolicy"] == "Running"


def test_what_could_end_or_revive_a_job_behind_our_back_is_taken_out():
    given = {
        "suspend": True,
        "backoffLimit": 3,
        "ttlSecondsAfterFinished": 10,
        "activeDeadlineSeconds": 60,
        "schedulingPolicy": {"queue": "gpu"},
    }
    policy = workload(template=make_template(runPolicy=given))["spec"]["runPolicy"]
    assert policy == {"cleanPodPolicy": "Running", "schedulingPolicy": {"queue": "gpu"}}


def test_torchrun_starts_no_rank_anew_inside_a_pod():
    elastic = {"minReplicas": 1, "maxReplicas": 1, "maxRestarts": 5, "rdzvBackend": "c10d"}
    job = workload(template=make_template(elasticPolicy=elastic))
    assert job["spec"]["elasticPolicy"] == {**elastic, "maxRestarts": 0}
    assert {"name": "PET_MAX_RESTARTS", "value": "0"} in trainer_of(job)["env"]


# -- tolerations -------------------------------------------------------------------------------------------------------


def tolerations(*given, **spec):
    pod = {"tolerations": list(given)} if given else {}
    return pod_of(workload(template=of_container(pod=pod), **spec))["tolerations"]


def seconds(found, key):
    """As the taint manager reads it: the first toleration that matches a NoExecute taint counts."""
    for item in found:
        if item.get("key") in (None, key) and item.get("effect") in (None, "NoExecute"):
            return item.get("tolerationSeconds", float("inf"))
    return 0


@pytest.mark.parametrize("key", [UNREACHABLE, NOT_READY])
def test_a_lost_node_is_left_after_the_time_that_the_run_says(key):
    assert seconds(tolerations(), key) == 60
    assert seconds(tolerations(unreachable={"tolerationSeconds": 7}), key) == 7


@pytest.mark.parametrize("key", [UNREACHABLE, NOT_READY])
@pytest.mark.parametrize(
    "endless", [{"operator": "Exists"}, {"operator": "Exists", "effect": "NoExecute"}, {"key": UNREACHABLE}]
)
def test_a_toleration_without_an_end_does_not_keep_the_pod_on_a_lost_node(key, endless):
    assert seconds(tolerations(endless), key) == 60


@pytest.mark.parametrize("key", [UNREACHABLE, NOT_READY])
def test_a_time_that_the_template_sets_is_left_alone(key):
    own = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 600}
    assert seconds(tolerations(own), key) == 600
    for_all = {"operator": "Exists", "tolerationSeconds": 600}
    assert seconds(tolerations(for_all), key) == 600


def test_the_templates_own_tolerations_stay():
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert gpu in tolerations(gpu)


# -- added -------------------------------------------------------------------------------------------------------------


def test_the_name_follows_from_the_attempt():
    assert workload(attempt=3, epoch=7)["metadata"]["name"] == "digits-lr-0-a3"


def test_the_sweeprun_owns_the_job():
    metadata = workload()["metadata"]
    assert metadata["namespace"] == "sweeps"
    assert metadata["ownerReferences"] == [
        {
            "apiVersion": "sweeprun.dev/v1alpha1",
            "kind": "SweepRun",
            "name": "digits-lr-0",
            "uid": UID,
            "controller": True,
        }
    ]


LABELS = {
    "app.kubernetes.io/managed-by": "sweeprun",
    "sweeprun.dev/name": "digits-lr-0",
    "sweeprun.dev/uid": UID,
    "sweeprun.dev/role": "attempt",
    "sweeprun.dev/number": "3",
    "sweeprun.dev/sweep": "digits-lr",
}


def test_job_and_pods_carry_our_labels_beside_the_users():
    template = make_template()
    template["metadata"] = {"labels": {"kueue.x-k8s.io/queue-name": "gpu"}, "annotations": {"team": "a"}}
    pod = template["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    pod["metadata"] = {"labels": {"app": "mine", "sweeprun.dev/uid": "forged"}, "annotations": {"note": "x"}}
    job = workload(attempt=3, epoch=7, template=template)
    assert job["metadata"]["labels"] == {**LABELS, "kueue.x-k8s.io/queue-name": "gpu"}
    assert job["metadata"]["annotations"]["team"] == "a"
    assert job["metadata"]["annotations"]["sweeprun.dev/epoch"] == "7"
    for kind, own in (("Master", {"app": "mine"}), ("Worker", {})):
        metadata = job["spec"]["pytorchReplicaSpecs"][kind]["template"]["metadata"]
        assert metadata["labels"] == {**LABELS, **own}
        assert metadata["annotations"]["sweeprun.dev/epoch"] == "7"


def test_an_init_container_of_ours_brings_the_entrypoint_before_all_others():
    template = of_container(pod={"initContainers": [{"name": "download", "image": "x"}]})
    pod = pod_of(workload(template=template))
    assert [item["name"] for item in pod["initContainers"]] == ["sweeprun-install", "download"]
    install = pod["initContainers"][0]
    assert (install["image"], install["imagePullPolicy"]) == (IMAGES.image, "IfNotPresent")


@pytest.mark.parametrize(
    ("given", "borrowed"),
    [
        (None, {}),
        ({"limits": {"nvidia.com/gpu": "8"}}, {}),
        (
            {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "8Gi", "nvidia.com/gpu": 1}},
            {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "8Gi"}},
        ),
        ({"limits": {"ephemeral-storage": "1Gi", "hugepages-2Mi": "1Gi"}}, {"limits": {"ephemeral-storage": "1Gi"}}),
    ],
)
def test_that_container_asks_for_nothing_that_the_training_container_does_not_ask_for(given, borrowed):
    """Else a queue that knows only GPUs would never admit the pod, and a LimitRange might refuse it."""
    pod = pod_of(workload(template=of_container(resources=given)))
    assert pod["initContainers"][0]["resources"] == borrowed


def test_the_container_that_brings_the_entrypoint_is_restricted():
    install = pod_of(workload())["initContainers"][0]
    assert install["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    as_root = pod_of(workload(template=of_container(pod={"securityContext": {"runAsUser": 0}})))
    assert as_root["initContainers"][0]["securityContext"]["runAsNonRoot"] is False


def test_images_are_those_of_the_installation():
    build = Manifests(HelperImages(image="mirror/op:2", pull_policy="Always"))
    install = pod_of(build.workload(decided()))["initContainers"][0]
    assert (install["image"], install["imagePullPolicy"]) == ("mirror/op:2", "Always")


# -- left alone --------------------------------------------------------------------------------------------------------


def test_all_else_of_the_template_is_as_the_user_wrote_it():
    pod = {
        "serviceAccountName": "trainer",
        "nodeSelector": {"gpu": "a100"},
        "terminationGracePeriodSeconds": 120,
        "priorityClassName": "low",
        "securityContext": {"runAsUser": 1000},
        "hostIPC": True,
    }
    template = of_container(pod=pod)
    template["spec"]["nprocPerNode"] = "4"
    job = workload(template=template)
    found = pod_of(job)
    assert {key: found[key] for key in pod} == pod
    assert job["spec"]["nprocPerNode"] == "4"
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")


def test_only_the_training_container_is_touched():
    sidecar = make_container(name="sidecar", command=["tail"], env=[{"name": "A", "value": "1"}])
    template = make_template(pod=make_pod(make_container(name="train"), sidecar))
    job = workload(template=template, entrypoint={"containerName": "train"})
    assert trainer_of(job, name="sidecar") == sidecar
    assert trainer_of(job, name="train")["command"][0] == "/bin/sh"


def test_the_spec_is_not_changed_by_building_from_it():
    run = decided(resume=500)
    before = copy.deepcopy(run.to_wire())
    BUILD.workload(run)
    BUILD.prepare_job(run, cluster_id="c")
    assert run.to_wire() == before


def test_the_same_input_gives_the_same_bytes():
    one = json.dumps(BUILD.workload(decided(resume=500)))
    assert one == json.dumps(BUILD.workload(decided(resume=500)))


def test_the_hash_of_a_template_does_not_depend_on_the_order_of_its_keys():
    one, other = make_template(), make_template()
    replicas = other["spec"]["pytorchReplicaSpecs"]
    other["spec"]["pytorchReplicaSpecs"] = dict(reversed(replicas.items()))
    assert BUILD.template_hash(decided(template=one)) == BUILD.template_hash(decided(template=other))
    changed = make_template(workers=2)
    assert BUILD.template_hash(decided(template=one)) != BUILD.template_hash(decided(template=changed))


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_replicas_are_counted_by_lower_case_type():
    assert BUILD.replicas(decided(template=make_template(workers=3))) == {"master": 1, "worker": 3}


def test_a_replica_without_a_number_is_one_pod():
    template = make_template()
    del template["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"]
    assert BUILD.replicas(decided(template=template)) == {"master": 1, "worker": 1}


@pytest.mark.parametrize("count", ["2", 1.5, True, -1, [1]])
def test_a_number_of_replicas_that_is_none_is_an_error_for_the_user(count):
    template = make_template()
    template["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = count
    with pytest.raises(ValueError, match=r"Worker\.replicas"):
        BUILD.replicas(decided(template=template))


@pytest.mark.parametrize(
    ("limits", "gpus"),
    [
        ({"nvidia.com/gpu": 2}, 6),
        ({"nvidia.com/gpu": "2", "cpu": "8"}, 6),
        ({"amd.com/gpu": 1}, 3),
        ({"nvidia.com/mig-1g.5gb": 1, "memory": "1Gi"}, 0),
        ({"nvidia.com/gpu": "many"}, 0),
        (None, 0),
    ],
)
def test_gpus_of_all_pods_are_counted_by_their_limits(limits, gpus):
    container = make_container(resources={"limits": limits} if limits else None)
    assert BUILD.gpus(decided(template=make_template(workers=2, pod=make_pod(container)))) == gpus
