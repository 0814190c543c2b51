"""Mode EnvOnly: the image starts what it starts by itself; what it needs stands around it, and nothing else changes."""

from __future__ import annotations

import pytest

from support.decided import BUILD, IMAGES, decided, environment, of_container, pod_of, trainer_of
from support.manifests import make_container, make_pod, make_template
from sweeprun_protocol.environ import PodEnvironment, RunEnvironment

ENV_ONLY = {"mode": "EnvOnly"}
NO_COMMAND = of_container(command=None, args=["--lr", "0.1"])


def workload(template=NO_COMMAND, **spec):
    return BUILD.workload(decided(template=template, **spec))


def check_of(job, kind="Master"):
    (found,) = [item for item in pod_of(job, kind)["initContainers"] if item["name"] == "sweeprun-check"]
    return found


@pytest.mark.parametrize(
    ("mode", "command", "wrapped"),
    [
        ("Auto", ["python", "train.py"], True),
        ("Auto", None, False),
        ("Wrap", ["python", "train.py"], True),
        ("EnvOnly", ["python", "train.py"], False),
        ("EnvOnly", None, False),
    ],
)
def test_the_mode_decides_what_runs(mode, command, wrapped):
    job = workload(of_container(command=command), entrypoint={"mode": mode})
    given = [] if command is None else command
    expected = ["/bin/sh", "/sweeprun/run.sh", *given] if wrapped else given
    assert trainer_of(job).get("command", []) == expected
    (first,) = pod_of(job)["initContainers"]
    assert first["name"] == ("sweeprun-install" if wrapped else "sweeprun-check")
    assert job["spec"]["runPolicy"]["cleanPodPolicy"] == ("Running" if wrapped else "None")


def test_wrap_without_a_command_cannot_be_built():
    with pytest.raises(ValueError, match="there is nothing to wrap"):
        workload(entrypoint={"mode": "Wrap"})


def test_each_replica_is_judged_by_its_own_container():
    template = make_template()
    template["spec"]["pytorchReplicaSpecs"]["Worker"]["template"] = make_pod(make_container(command=None))
    job = workload(template)
    assert trainer_of(job, "Master")["command"][0] == "/bin/sh"
    assert "command" not in trainer_of(job, "Worker")
    assert job["spec"]["runPolicy"]["cleanPodPolicy"] == "None"


def test_nothing_of_the_entrypoint_is_mounted():
    pod = pod_of(workload())
    assert [volume["name"] for volume in pod["volumes"]] == ["sweeprun-data"]
    assert [mount["mountPath"] for mount in trainer_of(workload())["volumeMounts"]] == ["/data"]


def test_the_environment_is_that_of_any_attempt():
    found = environment(trainer_of(workload(limits={"stallTimeoutSeconds": 60}, resume=500)))
    assert found["SWEEPRUN_RESUME_STEP"] == "500"
    assert found["SWEEPRUN_EPOCH"] == "1"
    assert "SWEEPRUN_PYTHON" not in environment(trainer_of(workload(entrypoint={"pythonPath": "/usr/bin/python3"})))
    assert "SWEEPRUN_STALL_SECONDS" not in found  # nobody would look


def test_torchrun_gets_the_pods_grace_unless_the_template_says_another():
    name = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
    graceful = of_container(command=None, pod={"terminationGracePeriodSeconds": 120})
    assert environment(trainer_of(workload(graceful)))[name] == "115"
    own = of_container(command=None, env=[{"name": name, "value": "17"}])
    assert environment(trainer_of(workload(own)))[name] == "17"
    assert name not in environment(trainer_of(workload(make_template())))  # the entrypoint sets it


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({"command": None, "args": ["--lr", "1"]}, ["--lr", "1", "--resume-from", "500"]),
        ({"command": ["/train"], "args": None}, ["--resume-from", "500"]),
        ({"command": None, "args": None}, None),
        ({"command": None, "args": ["bash", "-c", "train $SWEEPRUN_RESUME_ARGS"]}, None),
    ],
    ids=["args", "command", "neither: the image's CMD stays", "a shell line"],
)
def test_resume_arguments_are_appended_where_that_loses_nothing(container, expected):
    run = decided(template=of_container(**container), entrypoint=ENV_ONLY, resume=500)
    asked = run.spec.resume.model_copy(update={"args": ["--resume-from", "$(SWEEPRUN_RESUME_STEP)"]})
    spec = run.spec.model_copy(update={"resume": asked})
    found = trainer_of(BUILD.workload(run.model_copy(update={"spec": spec})))
    assert found.get("args") == (expected if expected is not None else container["args"])


# -- the start check ---------------------------------------------------------------------------------------------------


def test_an_init_container_makes_the_start_check_last_of_all():
    template = of_container(command=None, pod={"initContainers": [{"name": "download", "image": "x"}]})
    job = workload(template)
    assert [item["name"] for item in pod_of(job)["initContainers"]] == ["download", "sweeprun-check"]
    check = check_of(job)
    assert check["command"] == ["python", "/opt/sweeprun/sweeprun.pyz", "check"]
    assert check["image"] == IMAGES.image
    assert check["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize("kind", ["Master", "Worker"])
def test_it_knows_the_slot_as_the_training_container_does_and_nothing_of_the_users(kind):
    secret = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}
    job = workload(of_container(command=None, env=[secret]), resume=500)
    check = environment(check_of(job, kind))
    assert "HF_TOKEN" not in check
    downward = {name: "1" for name, value in check.items() if isinstance(value, dict)}
    told = {**check, **downward}
    assert PodEnvironment.decode(told).slot == f"{kind.lower()}-1"
    assert RunEnvironment.decode(told).resume_step == 500


def test_it_sees_the_volume_as_the_training_container_does():
    storage = {"persistentVolumeClaim": {"claimName": "sweeps", "subPath": "experiments"}}
    (mount,) = check_of(workload(storage=storage))["volumeMounts"]
    assert mount == {"name": "sweeprun-data", "mountPath": "/data", "subPath": "experiments"}
    volumes = [{"name": "mine", "persistentVolumeClaim": {"claimName": "sweeps"}}, {"name": "tmp", "emptyDir": {}}]
    mounts = [{"name": "mine", "mountPath": "/data/"}, {"name": "tmp", "mountPath": "/tmp"}]
    own = of_container(command=None, volumeMounts=mounts, pod={"volumes": volumes})
    assert check_of(workload(own))["volumeMounts"] == [{"name": "mine", "mountPath": "/data/"}]


@pytest.mark.parametrize(
    ("pod", "container", "user", "may_be_root"),
    [
        ({}, {}, None, False),
        ({"runAsUser": 1000, "fsGroup": 5}, {}, 1000, False),
        ({"runAsUser": 1000}, {"runAsUser": 2000, "runAsGroup": 7}, 2000, False),
        ({"runAsUser": 0}, {}, 0, True),
        ({}, {"runAsUser": 0}, 0, True),
    ],
)
def test_it_runs_as_the_training_container_and_is_restricted(pod, container, user, may_be_root):
    template = of_container(command=None, securityContext=container, pod={"securityContext": pod})
    security = check_of(workload(template))["securityContext"]
    assert security.get("runAsUser") == user
    assert security["runAsNonRoot"] is not may_be_root
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}


def test_a_template_may_not_use_its_name():
    template = of_container(command=None, pod={"initContainers": [{"name": "sweeprun-check", "image": "x"}]})
    with pytest.raises(ValueError, match="sweeprun-check, a name that the operator uses itself"):
        workload(template)
