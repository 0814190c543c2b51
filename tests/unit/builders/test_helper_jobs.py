"""The Jobs of prepare and sweep_init: on the volume, without a token, restricted, named by their number."""

from __future__ import annotations

import json

import pytest
import yaml

from support.decided import BUILD, CLUSTER, IMAGES, RUN_ID, decided, environment, of_container
from support.manifests import UID, make_init, make_template
from sweeprun_operator.builders.helper_job import ATTACH_SECONDS
from sweeprun_protocol.prepare import PrepareRequest
from sweeprun_protocol.reasons import AdoptionScope


def prepare(**spec):
    return BUILD.prepare_job(decided(**spec), cluster_id=CLUSTER)


def survey(**spec):
    return BUILD.survey_job(decided(**spec), cluster_id=CLUSTER)


def init(template=None, **spec):
    given = make_init() if template is None else {"template": template}
    return BUILD.init_job(decided(init=given, **spec), cluster_id=CLUSTER)


def init_template(*, container=None, **pod):
    found = {
        "name": "init",
        "image": "registry.test/init:1",
        "command": ["python", "sweep_init.py"],
        **(container or {}),
    }
    return {"spec": {"containers": [found], **pod}}


def pod_of(job):
    return job["spec"]["template"]["spec"]


def request_of(job) -> PrepareRequest:
    value = environment(pod_of(job)["containers"][0])["SWEEPRUN_PREPARE_REQUEST"]
    return PrepareRequest.decode(value.replace("$$", "$"))


BOTH = pytest.mark.parametrize("build", [prepare, init])
EACH = pytest.mark.parametrize("build", [prepare, init, survey])


# -- both --------------------------------------------------------------------------------------------------------------


def test_names_follow_from_the_number_of_the_prepare():
    assert prepare(attempt=4)["metadata"]["name"] == "digits-lr-0-p4"
    assert init(attempt=4)["metadata"]["name"] == "digits-lr-0-i4"
    assert survey(attempt=4)["metadata"]["name"] == "digits-lr-0-s4"


def test_a_survey_is_a_prepare_that_only_reads_bounded_by_the_longest_grace_and_gone_at_once():
    template = make_template()
    replicas = template["spec"]["pytorchReplicaSpecs"]
    replicas["Worker"]["template"]["spec"]["terminationGracePeriodSeconds"] = 120
    job, twin = survey(template=template), prepare(template=template)
    pod, of_prepare = pod_of(job), pod_of(twin)
    (container,), (its,) = pod.pop("containers"), of_prepare.pop("containers")
    assert pod.pop("terminationGracePeriodSeconds") == 1
    assert pod == of_prepare
    assert container["command"] == [
        *("python", "-m", "sweeprun_volume", "survey"),
        *its["command"][4:],
        "--seconds",
        "180",
    ]
    changed = {"command": its["command"], "name": its["name"]}
    assert container | changed == its
    assert job["spec"]["activeDeadlineSeconds"] == 240
    assert job["spec"]["backoffLimit"] == 0
    replicas["Worker"]["template"]["spec"]["terminationGracePeriodSeconds"] = 10**9
    assert survey(template=template)["spec"]["activeDeadlineSeconds"] == 960


@EACH
def test_the_sweeprun_owns_the_job_and_its_labels_say_whose_it_is(build):
    job = build(attempt=4)
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("SweepRun", "digits-lr-0", UID, True)
    labels = {
        "app.kubernetes.io/managed-by": "sweeprun",
        "sweeprun.dev/name": "digits-lr-0",
        "sweeprun.dev/uid": UID,
        "sweeprun.dev/role": build.__name__,
        "sweeprun.dev/number": "4",
        "sweeprun.dev/sweep": "digits-lr",
    }
    assert job["metadata"]["labels"] == labels
    assert job["spec"]["template"]["metadata"]["labels"] == labels


@EACH
def test_a_pod_is_tried_once_and_holds_no_token(build):
    job = build()
    assert job["spec"]["backoffLimit"] == 0
    assert pod_of(job)["restartPolicy"] == "Never"
    assert pod_of(job)["automountServiceAccountToken"] is False
    assert "ttlSecondsAfterFinished" not in job["spec"], "the operator reads the answer first, and deletes by number"


@BOTH
def test_our_containers_are_restricted(build):
    pod = pod_of(build())
    ours = [
        item for item in [*pod.get("initContainers", []), *pod["containers"]] if item["name"].startswith("sweeprun")
    ]
    assert ours
    for container in ours:
        security = {**pod["securityContext"], **container["securityContext"]}
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (container["image"], container["imagePullPolicy"]) == (IMAGES.image, "IfNotPresent")
        assert container["terminationMessagePolicy"] == "File"
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]


@BOTH
def test_no_helper_asks_for_an_accelerator(build):
    gpu = {"resources": {"limits": {"nvidia.com/gpu": 8}}}
    pod = {
        "nodeSelector": {"cloud.google.com/gke-accelerator": "a100", "zone": "b"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}, {"key": "spot", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
        "priorityClassName": "low",
    }
    found = pod_of(
        build(template=of_container(pod=pod, **gpu)) if build is prepare else init_with(of_container(pod=pod, **gpu))
    )
    assert "nvidia.com/gpu" not in json.dumps(found["containers"])
    kept = [item for item in found["tolerations"] if "tolerationSeconds" not in item]
    assert kept == [{"key": "spot", "operator": "Exists"}]
    assert found["imagePullSecrets"] == [{"name": "registry"}]
    assert found["priorityClassName"] == "low"
    if build is prepare:
        assert found["nodeSelector"] == {"zone": "b"}


def init_with(template):
    return BUILD.init_job(decided(init=make_init(), template=template), cluster_id=CLUSTER)


@BOTH
def test_the_same_input_gives_the_same_bytes(build):
    assert json.dumps(build(config={"b": 1, "a": 2}) if build is prepare else build()) == json.dumps(
        build(config={"a": 2, "b": 1}) if build is prepare else build()
    )


@BOTH
def test_the_volume_is_mounted_as_training_has_it(build):
    storage = {"persistentVolumeClaim": {"claimName": "sweeps", "subPath": "experiments"}, "mountPath": "/work"}
    pod = pod_of(build(storage=storage))
    assert {"name": "sweeprun-data", "persistentVolumeClaim": {"claimName": "sweeps"}} in pod["volumes"]
    mount = {"name": "sweeprun-data", "mountPath": "/work", "subPath": "experiments"}
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        assert container["volumeMounts"] == [mount]


# -- prepare -----------------------------------------------------------------------------------------------------------


def test_prepare_may_take_the_time_of_validation_beside_that_of_attaching():
    job = prepare(checkpoint={"validation": {"timeoutSeconds": 100}})
    assert job["spec"]["activeDeadlineSeconds"] == 100 + ATTACH_SECONDS
    assert request_of(job).timeout_seconds == 100


def test_prepare_sees_the_volume_with_the_users_identity():
    identity = {"runAsUser": 1000, "runAsGroup": 1001, "fsGroup": 2000, "supplementalGroups": [5], "sysctls": [{}]}
    security = pod_of(prepare(template=of_container(pod={"securityContext": identity})))["securityContext"]
    del identity["sysctls"]
    assert security == {**identity, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_the_training_containers_own_user_comes_first():
    template = of_container(pod={"securityContext": {"runAsUser": 1000}}, securityContext={"runAsUser": 7})
    assert pod_of(prepare(template=template))["securityContext"]["runAsUser"] == 7


def test_prepare_runs_as_root_only_where_training_says_so():
    template = of_container(pod={"securityContext": {"runAsUser": 0}})
    assert pod_of(prepare(template=template))["securityContext"]["runAsNonRoot"] is False
    assert pod_of(prepare())["securityContext"]["runAsNonRoot"] is True


@BOTH
def test_helpers_leave_a_lost_node_as_soon_as_the_run_says(build):
    endless = [{"operator": "Exists"}]
    jobs = [build(), build(helperPods={"tolerations": endless})]
    if build is init:
        jobs.append(init(init_template(tolerations=endless)))
    for job in jobs:
        timed = {item["key"]: item["tolerationSeconds"] for item in pod_of(job)["tolerations"][:2]}
        assert timed == {"node.kubernetes.io/not-ready": 60, "node.kubernetes.io/unreachable": 60}


def test_helper_pods_may_be_shaped_by_the_user():
    shape = {
        "labels": {"cost": "a", "sweeprun.dev/uid": "forged"},
        "annotations": {"x": "y"},
        "securityContext": {"runAsUser": 5},
        "imagePullSecrets": [{"name": "own"}],
        "nodeSelector": {"disk": "fast"},
        "tolerations": [],
        "priorityClassName": "high",
        "resources": {"limits": {"cpu": "2"}},
    }
    job = prepare(helperPods=shape)
    pod = pod_of(job)
    assert pod["securityContext"] == {"runAsUser": 5}
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert (pod["priorityClassName"], pod["imagePullSecrets"]) == ("high", [{"name": "own"}])
    assert pod["containers"][0]["resources"] == {"limits": {"cpu": "2"}}
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert (labels["cost"], labels["sweeprun.dev/uid"]) == ("a", UID)
    assert job["spec"]["template"]["metadata"]["annotations"] == {"x": "y"}


def test_the_request_says_what_may_be_deleted():
    bounds = {"retention": {"keepLast": 3}, "quarantine": {"keepLast": 5}}
    found = request_of(prepare(checkpoint=bounds))
    assert (found.keep_last, found.quarantine_keep_last) == (3, 5)
    assert request_of(init(checkpoint=bounds)).keep_last == 3
    none = request_of(prepare())
    assert (none.keep_last, none.quarantine_keep_last) == (None, None), "nothing is deleted unasked"


def test_the_request_says_what_the_run_is():
    found = request_of(prepare(attempt=4, epoch=5, resume=500, template=make_template(workers=2)))
    assert (found.owner.cluster, found.owner.namespace, found.owner.name, found.owner.uid) == (
        CLUSTER,
        "sweeps",
        "digits-lr-0",
        UID,
    )
    assert (found.prepare, found.run_id, found.started, found.volume_id) == (4, RUN_ID, True, "volume-1")
    assert (found.known_epoch, found.pinned.step) == (5, 500)
    assert found.slots == ("master-0", "worker-0", "worker-1")
    assert found.adoption.scope is AdoptionScope.NONE, "a run that has its ID is its own"


def test_the_configuration_is_written_with_its_keys_in_order():
    text = request_of(prepare(config={"z": "$(HOME) $$", "a": {"nested": [1, "ä"]}})).configuration.text
    assert yaml.safe_load(text) == {"z": "$(HOME) $$", "a": {"nested": [1, "ä"]}}
    assert text.index("a:") < text.index("z:")


def test_a_configuration_that_fits_no_variable_is_an_error_for_the_user():
    with pytest.raises(ValueError, match=r"spec\.config is too large"):
        prepare(config={"text": "ä" * (25 << 10)})


# -- sweep_init --------------------------------------------------------------------------------------------------------


def containers(job):
    pod = pod_of(job)
    return [item["name"] for item in pod["initContainers"]], [item["name"] for item in pod["containers"]]


def test_sweep_init_runs_between_ours_and_ours_comes_last():
    job = init(init_template(initContainers=[{"name": "fetch", "image": "x"}]))
    assert containers(job) == (["fetch", "sweeprun-make-init-dir", "init"], ["sweeprun-finish-init"])


def users(job):
    return next(item for item in pod_of(job)["initContainers"] if item["name"] == "init")


def test_sweep_init_is_told_where_to_write_and_a_stable_key():
    found = environment(users(init(attempt=4)))
    assert found["SWEEPRUN_INIT_KEY"] == environment(users(init(attempt=9)))["SWEEPRUN_INIT_KEY"]
    assert found["SWEEPRUN_INIT_DIR"].startswith("/data/")
    assert "$(SWEEPRUN_POD_UID)" in found["SWEEPRUN_INIT_DIR"], "a directory per pod"
    assert found["SWEEPRUN_SWEEP_NAME"] == "digits-lr"


def test_the_key_is_another_one_for_another_fresh_start():
    run = decided(init=make_init())
    counts = run.status.counts.model_copy(update={"fresh_starts": 1})
    later = run.model_copy(update={"status": run.status.model_copy(update={"counts": counts})})
    keys = {environment(users(BUILD.init_job(one, cluster_id=CLUSTER)))["SWEEPRUN_INIT_KEY"] for one in (run, later)}
    assert len(keys) == 2


def test_the_users_part_stays_as_it_is():
    template = init_template(
        container={"env": [{"name": "A", "value": "$(SWEEPRUN_INIT_DIR)"}], "resources": {"limits": {"cpu": "4"}}},
        serviceAccountName="searcher",
        nodeSelector={"disk": "fast"},
    )
    template["metadata"] = {"labels": {"app": "init"}}
    job = init(template)
    assert users(job)["resources"] == {"limits": {"cpu": "4"}}
    assert environment(users(job))["A"] == "$(SWEEPRUN_INIT_DIR)"
    assert users(job)["env"][-1]["name"] == "A", "ours first, so that it may refer to them"
    assert (pod_of(job)["serviceAccountName"], pod_of(job)["nodeSelector"]) == ("searcher", {"disk": "fast"})
    assert job["spec"]["template"]["metadata"]["labels"]["app"] == "init"


def test_an_image_that_runs_as_root_may_where_training_may():
    job = init()
    assert "runAsNonRoot" not in pod_of(job)["securityContext"]
    assert "securityContext" not in users(job)
    strict = init_with(of_container(pod={"securityContext": {"runAsNonRoot": True}}))
    assert pod_of(strict)["securityContext"]["runAsNonRoot"] is True


def test_the_claim_that_sweep_init_mounts_itself_is_not_mounted_again():
    own = {"name": "mine", "mountPath": "/data"}
    volume = {"name": "mine", "persistentVolumeClaim": {"claimName": "sweeps"}}
    job = init(init_template(container={"volumeMounts": [own]}, volumes=[volume]))
    assert users(job)["volumeMounts"] == [own]


@pytest.mark.parametrize("volume", [{"emptyDir": {}}, {"persistentVolumeClaim": {"claimName": "other"}}])
def test_another_volume_at_the_path_is_an_error_for_the_user(volume):
    own = {"name": "mine", "mountPath": "/data"}
    template = init_template(container={"volumeMounts": [own]}, volumes=[{"name": "mine", **volume}])
    with pytest.raises(ValueError, match="/data is another volume"):
        init(template)


def test_sweep_init_is_exactly_one_container():
    with pytest.raises(ValueError, match="exactly one container"):
        init({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}})


def test_its_deadline_is_its_own_beside_that_of_prepare():
    job = BUILD.init_job(decided(init=make_init(activeDeadlineSeconds=60)), cluster_id=CLUSTER)
    assert job["spec"]["activeDeadlineSeconds"] == 60 + prepare()["spec"]["activeDeadlineSeconds"]


def test_both_ask_the_same_of_the_volume():
    run = decided(init=make_init())
    asked = [request_of(build(run, cluster_id=CLUSTER)) for build in (BUILD.prepare_job, BUILD.init_job)]
    assert asked[0] == asked[1]
    assert asked[0].init_key == environment(users(init()))["SWEEPRUN_INIT_KEY"]
