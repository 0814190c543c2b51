"""Templates that are wrong or mean harm: nothing is dropped silently, nothing reaches a shell or a name."""

from __future__ import annotations

import json

import pytest

from support.decided import BUILD, CLUSTER, RUN_ID, decided, environment, of_container, pod_of, trainer_of
from support.manifests import make_container, make_init, make_pod, make_run, make_template
from sweeprun_operator.api.status import Current, State
from sweeprun_operator.builders.kubernetes_text import expanded, literal

NASTY = "$(rm -rf /) `id` $$ ${HOME} ' \" \\ \n ä"


def workload(template, **spec):
    return BUILD.workload(decided(template=template, **spec))


# -- what the API server has to see, to refuse it ----------------------------------------------------------------------


def test_an_argument_that_yaml_reads_as_a_number_is_not_dropped():
    found = trainer_of(workload(of_container(command=["python", 5, True], args=["--lr", 0.1]), resume=500))
    assert found["command"][2:] == ["python", 5, True]
    assert found["args"][:2] == ["--lr", 0.1]


def test_variables_that_are_no_objects_are_not_dropped():
    found = trainer_of(workload(of_container(env=["LR=0.1"])))
    assert found["env"][-1] == "LR=0.1"


@pytest.mark.parametrize("field", ["initContainers", "volumes", "tolerations"])
def test_entries_of_the_pod_that_are_no_objects_are_not_dropped(field):
    assert "nonsense" in pod_of(workload(of_container(pod={field: ["nonsense"]})))[field]


def test_containers_that_are_no_objects_are_not_dropped():
    template = make_template(pod={"spec": {"containers": [make_container(), "nonsense"]}})
    assert "nonsense" in pod_of(workload(template))["containers"]


@pytest.mark.parametrize("field", ["initContainers", "volumes", "tolerations"])
def test_a_list_that_is_none_is_an_error_for_the_user(field):
    with pytest.raises(ValueError, match=f"{field} is no list"):
        workload(of_container(pod={field: {"name": "x"}}))


@pytest.mark.parametrize("field", ["command", "env", "volumeMounts"])
def test_a_list_of_the_container_that_is_none_is_an_error_for_the_user(field):
    with pytest.raises(ValueError, match=f"{field} is no list"):
        workload(of_container(**{field: "python train.py"}))


@pytest.mark.parametrize("where", ["runPolicy", "metadata", "pod metadata", "pod labels"])
def test_an_object_that_is_none_is_an_error_for_the_user(where):
    template = make_template()
    replica = template["spec"]["pytorchReplicaSpecs"]["Master"]
    if where == "runPolicy":
        template["spec"]["runPolicy"] = ["x"]
    elif where == "metadata":
        template["metadata"] = {"labels": ["x"]}
    elif where == "pod metadata":
        replica["template"]["metadata"] = "x"
    else:
        replica["template"]["metadata"] = {"labels": "x"}
    with pytest.raises(ValueError, match="is no object"):
        workload(template)


# -- names that are ours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sweeprun-data", "sweeprun-entrypoint"])
def test_a_volume_of_our_name_is_an_error_for_the_user(name):
    with pytest.raises(ValueError, match=f"{name}, a name that the operator uses itself"):
        workload(of_container(pod={"volumes": [{"name": name, "hostPath": {"path": "/"}}]}))


@pytest.mark.parametrize("field", ["initContainers", "containers"])
def test_a_container_of_our_name_is_an_error_for_the_user(field):
    pod = make_pod()
    pod["spec"].setdefault(field, []).append({"name": "sweeprun-install", "image": "x"})
    with pytest.raises(ValueError, match="sweeprun-install, a name that the operator uses itself"):
        workload(make_template(pod=pod))


def test_labels_that_say_whose_a_pod_is_cannot_be_forged():
    template = make_template()
    template["metadata"] = {"labels": {"sweeprun.dev/uid": "other", "sweeprun.dev/number": "99"}}
    labels = workload(template)["metadata"]["labels"]
    assert labels["sweeprun.dev/uid"] != "other"
    assert labels["sweeprun.dev/number"] == "0"


def test_variables_that_are_ours_cannot_be_set():
    own = [{"name": name, "value": "forged"} for name in ("SWEEPRUN_EPOCH", "SWEEPRUN_POD_UID", "SWEEPRUN_RUN_ID")]
    found = environment(trainer_of(workload(of_container(env=own))))
    assert "forged" not in found.values()


# -- text --------------------------------------------------------------------------------------------------------------


def test_text_arrives_as_it_was_written():
    assert literal(NASTY).replace("$$", "$") == NASTY
    assert "$(" not in literal(NASTY).replace("$$", "")


def test_values_that_hold_references_are_not_expanded_again():
    assert expanded("$(A) $(B) $$(A)", {"A": "$(B)", "B": "$"}) == "$$(B) $$ $$(A)"


def test_a_checkpoint_path_with_references_is_text():
    """It comes from the volume, which a tenant writes to."""
    run = decided(resume=500, path="checkpoints/$(SECRET)`id`")
    resume = run.spec.resume.model_copy(update={"args": ["--from=$(SWEEPRUN_RESUME_FROM)"]})
    run = run.model_copy(update={"spec": run.spec.model_copy(update={"resume": resume})})
    found = trainer_of(BUILD.workload(run))
    path = f"/data/sweep/digits-lr/runs/{RUN_ID}/checkpoints/$$(SECRET)`id`"
    assert found["args"] == [f"--from={path}"]
    assert environment(found)["SWEEPRUN_RESUME_FROM"] == path
    assert environment(found)["SWEEPRUN_RESUME_ARGS"] == f"'--from={path}'"


def test_a_mount_path_with_references_is_text():
    storage = {"persistentVolumeClaim": {"claimName": "sweeps"}, "mountPath": "/data$(X)"}
    job = BUILD.init_job(decided(init=make_init(), storage=storage), cluster_id=CLUSTER)
    init = next(item for item in job["spec"]["template"]["spec"]["initContainers"] if item["name"] == "init")
    assert environment(init)["SWEEPRUN_INIT_DIR"].startswith("/data$$(X)/")


def test_a_configuration_with_references_is_text():
    run = decided(config={"text": NASTY})
    job = BUILD.prepare_job(run, cluster_id=CLUSTER)
    value = environment(job["spec"]["template"]["spec"]["containers"][0])["SWEEPRUN_PREPARE_REQUEST"]
    assert "$" not in value.replace("$$", "")
    assert json.loads(value.replace("$$", "$"))["configuration"]["text"]


# -- templates without what is needed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [None, {}, [], "many"])
def test_a_template_without_replicas_is_an_error_for_the_user(replicas):
    run = make_run(template={"spec": {"pytorchReplicaSpecs": replicas}})
    current = Current(attempt=0, prepare=0, state=State.PREPARING, since="2026-03-01T00:00:00Z")
    run = run.model_copy(update={"status": run.status.model_copy(update={"current": current})})
    with pytest.raises(ValueError, match="pytorchReplicaSpecs"):
        BUILD.replicas(run)
    with pytest.raises(ValueError, match="pytorchReplicaSpecs"):
        BUILD.prepare_job(run, cluster_id=CLUSTER)


def test_a_template_without_the_training_container_is_an_error_for_the_user():
    with pytest.raises(ValueError, match="has none named pytorch"):
        workload(make_template(pod=make_pod(make_container(name="other"))))
