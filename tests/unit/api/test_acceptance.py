"""What a manifest is refused or warned for, each beside its twin that is accepted."""

from dataclasses import dataclass

import pytest

from support.manifests import make_container, make_init, make_pod, make_run, make_template
from sweeprun_operator.api.acceptance import Reason, problems, warnings


@dataclass(frozen=True)
class ClaimSeen:
    found: bool = True
    access_modes: tuple[str, ...] = ("ReadWriteMany",)


SHARED = ClaimSeen()


def template_of(workers=1, volumes=None, **container):
    pod = make_pod(make_container(**container))
    if volumes is not None:
        pod["spec"]["volumes"] = volumes
    return make_template(workers=workers, pod=pod)


def claim_volume(name="runs", claim="sweeps"):
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def mounted(path="/data", name="runs", volumes=None, **mount):
    volumes = volumes or [claim_volume(), {"name": "scratch", "emptyDir": {}}]
    return template_of(volumes=volumes, volumeMounts=[{"name": name, "mountPath": path, **mount}])


def only(found):
    """One problem, or several replicas with the same."""
    assert found, "nothing was found"
    assert len({problem.reason for problem in found}) == 1, found
    return found[0]


def judged(template, *, claim=SHARED, **spec):
    return problems(make_run(template=template, **spec).spec, claim)


def warned(template, *, claim=SHARED, **spec):
    return warnings(make_run(template=template, **spec).spec, claim)


def test_an_ordinary_manifest_has_no_problem_and_no_warning():
    assert judged(make_template()) == []
    assert warned(make_template()) == []


@pytest.mark.parametrize(
    ("template", "reason", "words"),
    [
        pytest.param(
            template_of(args=["x" * (256 << 10)]), Reason.TOO_LARGE, ["spec.template", "262144"], id="a huge template"
        ),
        pytest.param(
            {**make_template(), "metadata": {"name": "mine", "labels": {"a": "b"}}},
            Reason.TEMPLATE_INVALID,
            ["spec.template.metadata holds name:", "remove"],
            id="a name in the template",
        ),
        pytest.param(
            {"spec": {}}, Reason.REPLICAS_INVALID, ["pytorchReplicaSpecs has no Master"], id="no replicas at all"
        ),
        pytest.param(
            {"spec": {"pytorchReplicaSpecs": [1]}}, Reason.REPLICAS_INVALID, ["no Master"], id="replicas as a list"
        ),
        pytest.param(
            template_of(workers=-1), Reason.REPLICAS_INVALID, ["Worker.replicas is -1"], id="minus one worker"
        ),
        pytest.param(template_of(workers=512), Reason.REPLICAS_INVALID, ["1 to 511"], id="too many workers"),
        pytest.param(template_of(workers="two"), Reason.REPLICAS_INVALID, ["Worker.replicas is two"], id="a word"),
        pytest.param(
            template_of(name="trainer"),
            Reason.CONTAINER_MISSING,
            ["Master.template.spec.containers", "none named pytorch", "(found: trainer)", "containerName"],
            id="another container name",
        ),
        pytest.param(
            template_of(env=[{"name": "SWEEPRUN_EPOCH", "value": "1"}, {"name": "WANDB_RUN_ID", "value": "x"}]),
            Reason.ENVIRONMENT_TAKEN,
            ["sets SWEEPRUN_EPOCH, WANDB_RUN_ID", "spec.tracking.wandb.runId"],
            id="our environment",
        ),
        pytest.param(
            make_template(elasticPolicy={"minReplicas": 1, "maxReplicas": 4}),
            Reason.ELASTIC_POLICY,
            ["minReplicas (1)", "maxReplicas (4)", "must both be 1"],
            id="an elastic job",
        ),
        pytest.param(
            mounted(name="scratch"),
            Reason.MOUNT_CONFLICT,
            ["(/data) is another volume than claim sweeps"],
            id="in the way",
        ),
        pytest.param(
            mounted(name="scratch", path="/data/"),
            Reason.MOUNT_CONFLICT,
            ["another volume"],
            id="in the way, with slash",
        ),
        pytest.param(mounted(readOnly=True), Reason.MOUNT_CONFLICT, ["readOnly", "remove"], id="our claim, read only"),
        pytest.param(
            mounted(subPath="a"), Reason.MOUNT_CONFLICT, ["subPath a", "(none)"], id="our claim, elsewhere in it"
        ),
        pytest.param(
            mounted(subPathExpr="$(X)"), Reason.MOUNT_CONFLICT, ["subPathExpr"], id="our claim, by expression"
        ),
        pytest.param(
            mounted(path="/workspace"),
            Reason.MOUNT_CONFLICT,
            ["(/workspace)", "set spec.storage.mountPath to /workspace"],
            id="our claim at another path",
        ),
        pytest.param(
            mounted(path="/sweeprun", name="scratch"),
            Reason.MOUNT_CONFLICT,
            ["entrypoint"],
            id="where the entrypoint is",
        ),
    ],
)
def test_refused_with_where_and_what_to_do(template, reason, words):
    problem = only(judged(template))
    assert problem.reason is reason
    assert not problem.transient
    for word in words:
        assert word in problem.message


@pytest.mark.parametrize(
    "template",
    [
        pytest.param({**make_template(), "metadata": {"labels": {"queue": "gpu"}, "annotations": {}}}, id="labels"),
        pytest.param(template_of(command=None, args=["--lr", "1"]), id="no command"),
        pytest.param(template_of(workers=0), id="a master alone"),
        pytest.param(template_of(workers=511), id="as many workers as possible"),
        pytest.param(template_of(env=[{"name": "WANDB_PROJECT", "value": "x"}]), id="environment of the user's"),
        pytest.param(make_template(elasticPolicy={"minReplicas": 1, "maxReplicas": 1}), id="elastic, one size"),
        pytest.param(make_template(elasticPolicy={"rdzvBackend": "c10d"}), id="elastic, sizes by default"),
        pytest.param(mounted(), id="our claim at our path"),
        pytest.param(mounted(path="/data/"), id="our claim at our path, with slash"),
        pytest.param(mounted(path="/scratch", name="scratch"), id="another volume elsewhere"),
        pytest.param(mounted(path="/datasets", readOnly=True), id="our claim elsewhere, read only"),
        pytest.param(
            make_template(pod=make_pod(make_container(), {"name": "logs", "env": [{"name": "SWEEPRUN_X"}]})),
            id="a sidecar",
        ),
    ],
)
def test_accepted(template):
    assert judged(template) == []


def test_without_a_command_there_is_nothing_to_wrap():
    problem = only(judged(template_of(command=None, args=["--lr", "1"]), entrypoint={"mode": "Wrap"}))
    assert problem.reason is Reason.COMMAND_MISSING
    for word in ("containers[pytorch].command is not set", "write the command here", "EnvOnly"):
        assert word in problem.message
    assert judged(template_of(), entrypoint={"mode": "Wrap"}) == []


@pytest.mark.parametrize("probe", ["livenessProbe", "startupProbe"])
def test_a_probe_that_may_stop_what_nobody_watches_is_refused(probe):
    probed = {"command": None, probe: {"exec": {"command": ["true"]}}}
    problem = only(judged(template_of(**probed)))
    assert problem.reason is Reason.PROBE_STOPS
    assert f"has {probe}" in problem.message
    assert judged(template_of(**{**probed, "command": ["python"]})) == []
    assert judged(template_of(**probed), completion={"policy": "Explicit"}) == []
    assert judged(template_of(command=None, readinessProbe={})) == []


def test_a_second_master_is_refused():
    template = make_template()
    template["spec"]["pytorchReplicaSpecs"]["Master"]["replicas"] = 2
    assert "Master.replicas is 2: there is exactly one Master" in only(judged(template)).message


def test_a_replica_that_pytorchjobs_do_not_know_is_named():
    template = make_template()
    template["spec"]["pytorchReplicaSpecs"]["Evaluator"] = {"replicas": 1, "template": make_pod()}
    assert "holds Evaluator" in only(judged(template)).message


def test_every_replica_is_looked_at():
    template = make_template()
    template["spec"]["pytorchReplicaSpecs"]["Worker"]["template"] = make_pod(make_container(name="trainer"))
    assert "Worker" in only(judged(template)).message


def test_the_container_may_have_another_name_where_the_spec_says_so():
    assert judged(template_of(name="trainer"), entrypoint={"containerName": "trainer"}) == []


def test_a_data_set_on_the_same_claim_is_no_second_way_to_the_runs():
    storage = {"persistentVolumeClaim": {"claimName": "sweeps", "subPath": "experiments"}}
    assert judged(mounted(path="/datasets", subPath="datasets"), storage=storage) == []
    for sub_path in ("experiments", "experiments/sweep", ""):
        found = judged(mounted(path="/datasets", subPath=sub_path), storage=storage)
        assert only(found).reason is Reason.MOUNT_CONFLICT


def test_a_mount_with_the_same_sub_path_is_reused():
    storage = {"persistentVolumeClaim": {"claimName": "sweeps", "subPath": "experiments"}}
    assert judged(mounted(subPath="experiments/"), storage=storage) == []


@pytest.mark.parametrize(
    "words",
    [
        ["wandb", "agent", "me/digits/abc"],
        ["/opt/conda/bin/wandb", "--quiet", "agent", "abc"],
        ["python", "-m", "wandb", "agent", "abc"],
        ["bash", "-c", "cd /src && wandb agent --count 1 abc"],
        ["/bin/sh", "-ec", "exec python -m wandb agent abc"],
    ],
)
@pytest.mark.parametrize("as_args", [False, True], ids=["command", "args"])
def test_wandb_agent_is_refused_with_the_reason(words, as_args):
    container = {"command": words[:1], "args": words[1:]} if as_args else {"command": words}
    message = only(judged(template_of(**container))).message
    assert "`wandb agent`, which chooses the W&B run ID itself" in message
    assert "spec.init" in message


@pytest.mark.parametrize(
    "words",
    [
        ["python", "train.py", "--tracker", "wandb", "--role=agent"],
        ["python", "wandb_agent.py"],
        ["bash", "-c", "wandb login && python train.py --agent"],
    ],
)
def test_what_only_sounds_like_wandb_agent_is_accepted(words):
    assert judged(template_of(command=words)) == []


def test_a_large_configuration_is_refused_and_a_small_one_is_not():
    assert only(judged(make_template(), config={"x": "y" * (64 << 10)})).reason is Reason.TOO_LARGE
    assert judged(make_template(), config={"x": "y" * (63 << 10)}) == []


def test_init_has_exactly_one_container_without_our_variables():
    two = make_init()
    two["template"]["spec"]["containers"].append({"name": "second", "image": "x"})
    taken = make_init()
    taken["template"]["spec"]["containers"][0]["env"] = [{"name": "SWEEPRUN_INIT_KEY", "value": "k"}]
    assert judged(make_template(), init=make_init()) == []
    assert "has 2 containers" in only(judged(make_template(), init=two)).message
    assert "has 0 containers" in only(judged(make_template(), init={"template": {}})).message
    assert only(judged(make_template(), init=taken)).reason is Reason.ENVIRONMENT_TAKEN


def test_a_missing_claim_is_waited_for():
    problem = only(judged(make_template(), claim=ClaimSeen(found=False, access_modes=())))
    assert problem.reason is Reason.CLAIM_MISSING
    assert problem.transient
    assert "PersistentVolumeClaim sweeps" in problem.message
    assert "kubectl get pvc" in problem.message


@pytest.mark.parametrize(
    ("modes", "workers", "refused", "warned_of"),
    [
        (("ReadWriteMany",), 1, False, False),
        (("ReadWriteOnce",), 1, False, True),
        (("ReadWriteOnce",), 0, False, False),
        (("ReadWriteOnce", "ReadWriteMany"), 1, False, False),
        (("ReadWriteOncePod",), 1, True, False),
        (("ReadWriteOncePod",), 0, False, False),
        (("ReadOnlyMany",), 0, True, False),
    ],
)
def test_access_modes(modes, workers, refused, warned_of):
    claim = ClaimSeen(access_modes=modes)
    found = judged(template_of(workers=workers), claim=claim)
    assert [problem.reason for problem in found] == [Reason.ACCESS_MODE] * refused
    assert all(mode in problem.message for mode in modes for problem in found)
    advice = warned(template_of(workers=workers), claim=claim)
    assert [problem.reason for problem in advice] == [Reason.ACCESS_MODE] * warned_of


LINE = ["bash", "-lc", "python train.py"]


@pytest.mark.parametrize(
    ("command", "args", "lost"),
    [
        (LINE, ["--resume-from", "$(SWEEPRUN_RESUME_FROM)"], True),
        (["env", "A=1", "/bin/sh", "-c", "python train.py"], ["--resume"], True),
        (LINE, [], False),
        (["bash", "-c", "python train.py $SWEEPRUN_RESUME_ARGS"], ["--resume"], False),
        (["bash", "train.sh"], ["--resume"], False),
        (["bash", "train.sh", "-c", "config.yaml"], ["--resume"], False),
        (["python", "train.py"], ["--resume"], False),
    ],
)
def test_a_shell_line_loses_appended_arguments(command, args, lost):
    found = warned(template_of(command=command), resume={"args": args})
    assert {problem.reason for problem in found} == ({Reason.ARGUMENTS_LOST} if lost else set())
    assert all("$SWEEPRUN_RESUME_ARGS" in problem.message for problem in found)
    assert judged(template_of(command=command), resume={"args": args}) == []


@pytest.mark.parametrize(
    ("entry", "secret"),
    [
        ({"name": "WANDB_API_KEY", "value": "hunter2"}, True),
        ({"name": "HF_TOKEN", "value": "hunter2"}, True),
        ({"name": "DB_PASSWORD_1", "value": "hunter2"}, True),
        ({"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "k"}}}, False),
        ({"name": "TOKENIZERS_PARALLELISM", "value": "false"}, False),
        ({"name": "KEYBOARD", "value": "us"}, False),
    ],
)
def test_a_secret_in_plain_text_is_warned_of_and_never_repeated(entry, secret):
    found = warned(template_of(env=[entry]))
    assert {problem.reason for problem in found} == ({Reason.SECRET_IN_TEMPLATE} if secret else set())
    assert not any("hunter2" in problem.message for problem in found)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"suspend": True}, "use spec.suspend"),
        ({"backoffLimit": 0}, "use spec.limits.maxFailures"),
        ({"ttlSecondsAfterFinished": 5}, "use spec.ttlSecondsAfterFinished"),
        ({"activeDeadlineSeconds": 5}, "use spec.limits.activeDeadlineSeconds"),
        ({"cleanPodPolicy": "All"}, "cleanPodPolicy"),
    ],
)
def test_what_the_operator_sets_itself_is_warned_of(policy, words):
    problem = only(warned(make_template(runPolicy=policy)))
    assert problem.reason is Reason.OVERRIDDEN
    assert words in problem.message


def test_what_agrees_with_the_operator_is_not_warned_of():
    template = make_template(runPolicy={"suspend": False, "cleanPodPolicy": "Running"})
    template["spec"]["pytorchReplicaSpecs"]["Master"]["restartPolicy"] = "Never"
    assert warned(template) == []
    template["spec"]["pytorchReplicaSpecs"]["Master"]["restartPolicy"] = "OnFailure"
    assert "Master.restartPolicy" in only(warned(template)).message


@pytest.mark.parametrize(
    ("words", "warned_of"),
    [
        (["torchrun", "--max-restarts=3", "train.py"], True),
        (["torchrun", "--max_restarts", "1", "train.py"], True),
        (["bash", "-c", "accelerate launch --max_restarts 10 train.py $SWEEPRUN_RESUME_ARGS"], True),
        (["torchrun", "--max-restarts=0", "train.py"], False),
        (["torchrun", "train.py", "--max-restarts-note=3"], False),
    ],
)
def test_a_launcher_that_starts_ranks_anew_inside_a_pod_is_warned_of(words, warned_of):
    found = warned(template_of(command=words))
    assert {problem.reason for problem in found} == ({Reason.RESTARTS_RANKS} if warned_of else set())


def test_without_an_entrypoint_the_peers_of_a_master_that_ended_are_left_alone():
    template = template_of(command=None)
    template["spec"]["runPolicy"] = {"cleanPodPolicy": "None"}
    assert warned(template) == []
    template["spec"]["runPolicy"] = {"cleanPodPolicy": "Running"}
    assert "it is None here" in only(warned(template)).message


def test_arguments_that_would_replace_the_images_own_are_warned_of():
    resume = {"args": ["--resume-from", "$(SWEEPRUN_RESUME_FROM)"]}
    problem = only(warned(template_of(command=None), resume=resume))
    assert problem.reason is Reason.ARGUMENTS_LOST
    assert "the image's own arguments (CMD) would be lost" in problem.message
    assert warned(template_of(command=None, args=["--lr", "1"]), resume=resume) == []
    assert warned(template_of(command=None)) == []


@pytest.mark.parametrize("odd", [None, 7, "text", [], [None], {"spec": None}, {"spec": {"containers": "x"}}])
def test_wrong_types_are_problems_and_no_crash(odd):
    template = make_template()
    template["spec"]["pytorchReplicaSpecs"]["Worker"]["template"] = odd
    assert only(judged(template)).reason is Reason.CONTAINER_MISSING
    template["spec"]["pytorchReplicaSpecs"]["Worker"] = odd
    assert judged(template)
    warned(template)


def test_messages_fit_into_a_condition():
    names = ["n" * 300 + str(number) for number in range(50)]
    template = make_template(pod=make_pod(*[make_container(name=name) for name in names]))
    for problem in judged(template):
        assert len(problem.message) <= 1024
