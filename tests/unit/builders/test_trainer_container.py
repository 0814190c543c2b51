"""The training container: wrapped, told by environment what to do, with resume arguments on a resume and never else."""

from __future__ import annotations

import pytest

from support.decided import BUILD, DIGEST, RUN_ID, decided, environment, of_container, pod_of, trainer_of
from support.manifests import make_template
from sweeprun_operator.api.mounts import ENTRYPOINT_PATH
from sweeprun_protocol.environ import RunEnvironment
from sweeprun_protocol.reasons import Format

ARGS = ["--resume-from", "$(SWEEPRUN_RESUME_FROM)", "--step=$(SWEEPRUN_RESUME_STEP)"]
RUN_DIR = f"/data/sweep/digits-lr/runs/{RUN_ID}"
FROM = f"{RUN_DIR}/checkpoints/step-000000500.e1"


def trainer(*, kind: str = "Master", **spec):
    return trainer_of(BUILD.workload(decided(**spec)), kind)


# -- command -----------------------------------------------------------------------------------------------------------


def test_the_command_is_wrapped():
    found = trainer(template=of_container(command=["torchrun", "train.py"], args=["--lr", "0.1"]))
    assert found["command"] == ["/bin/sh", f"{ENTRYPOINT_PATH}/run.sh", "torchrun", "train.py"]
    assert found["args"] == ["--lr", "0.1"]


def test_the_tail_of_the_log_becomes_the_evidence():
    assert trainer()["terminationMessagePolicy"] == "FallbackToLogsOnError"


def with_arguments(*, resume: int | None, args=ARGS, template=None):
    run = decided(resume=resume, template=template or make_template())
    spec = run.spec.model_copy(update={"resume": run.spec.resume.model_copy(update={"args": list(args)})})
    return trainer_of(BUILD.workload(run.model_copy(update={"spec": spec})))


def test_arguments_are_appended_on_a_resume_with_their_references_replaced():
    found = with_arguments(resume=500, template=of_container(args=["--lr", "0.1"]))
    assert found["args"] == ["--lr", "0.1", "--resume-from", FROM, "--step=500"]
    assert environment(found)["SWEEPRUN_RESUME_ARGS"] == f"--resume-from {FROM} --step=500"


def test_arguments_are_not_appended_at_step_0():
    found = with_arguments(resume=None, template=of_container(args=["--lr", "0.1"]))
    assert found["args"] == ["--lr", "0.1"]
    assert environment(found)["SWEEPRUN_RESUME_ARGS"] == ""
    assert "SWEEPRUN_RESUME_FROM" not in environment(found)


def test_references_to_other_variables_are_left_to_the_kubelet():
    found = with_arguments(resume=500, args=["--host=$(HOSTNAME)", "$$(SWEEPRUN_RESUME_FROM)", "$(SWEEPRUN_EPOCH)"])
    assert found["args"] == ["--host=$(HOSTNAME)", "$$(SWEEPRUN_RESUME_FROM)", "1"]


LINES = [
    ["bash", "-c", "python train.py $SWEEPRUN_RESUME_ARGS"],
    ["/bin/bash", "-lc", "python train.py"],
    ["sh", "-ec", "exec python train.py"],
    ["tini", "--", "bash", "-c", "python train.py"],
    ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", "python train.py"],
]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_a_shell_line_gets_no_appended_arguments(words):
    found = with_arguments(resume=500, template=of_container(command=words))
    assert "args" not in found
    assert found["command"][2:] == words
    assert environment(found)["SWEEPRUN_RESUME_ARGS"] == f"--resume-from {FROM} --step=500"


def test_a_shell_line_in_args_gets_no_appended_arguments():
    found = with_arguments(resume=500, template=of_container(command=["bash"], args=["-c", "python train.py"]))
    assert found["args"] == ["-c", "python train.py"]


@pytest.mark.parametrize("words", [["bash", "train.sh"], ["python", "-c", "import train"], ["sh", "-x", "train.sh"]])
def test_what_is_no_shell_line_gets_them(words):
    found = with_arguments(resume=500, template=of_container(command=words))
    assert found["args"][:2] == ["--resume-from", FROM]


def test_arguments_in_one_string_are_quoted_for_a_shell():
    found = with_arguments(resume=500, args=["--note", "two words; rm -rf /", "it's"])
    assert environment(found)["SWEEPRUN_RESUME_ARGS"] == "--note 'two words; rm -rf /' 'it'\"'\"'s'"


# -- environment -------------------------------------------------------------------------------------------------------


def literal(container) -> dict[str, str]:
    """As the kubelet hands it on: no reference is left in ours."""
    return {name: value.replace("$$", "$") for name, value in environment(container).items() if isinstance(value, str)}


def test_the_entrypoint_can_read_what_it_is_told():
    found = RunEnvironment.decode(literal(trainer(attempt=2, epoch=2, resume=500)))
    assert found == RunEnvironment(
        run_id=RUN_ID,
        sweep_name="digits-lr",
        run_dir=RUN_DIR,
        checkpoint_dir=f"{RUN_DIR}/checkpoints",
        config_file=None,
        epoch=2,
        attempt=2,
        slots=["master-0", "worker-0"],
        grace_seconds=30,
        resume_from=FROM,
        resume_step=500,
        resume_epoch=1,
        resume_digest=DIGEST,
        resume_format="SweepRun",
        resume_args="",
    )


def test_the_format_is_told_as_prepare_found_it():
    values = literal(trainer(resume=500, path="checkpoints/e1/last.pt", checkpoint_format=Format.TORCH))
    assert values["SWEEPRUN_RESUME_FORMAT"] == "Torch"


def test_the_checkpoint_directory_may_be_one_per_epoch():
    values = literal(trainer(epoch=4, checkpoint={"directory": "out/{epoch}"}))
    assert values["SWEEPRUN_CHECKPOINT_DIR"].startswith(f"{RUN_DIR}/out/")
    assert values["SWEEPRUN_CHECKPOINT_DIR"] != f"{RUN_DIR}/out/{{epoch}}"


def test_the_grace_of_the_pod_is_told():
    template = of_container(pod={"terminationGracePeriodSeconds": 120})
    assert literal(trainer(template=template))["SWEEPRUN_GRACE_SECONDS"] == "120"


@pytest.mark.parametrize("kind", ["Master", "Worker"])
def test_each_pod_knows_its_slot_and_itself(kind):
    found = environment(trainer(kind=kind))
    assert found["SWEEPRUN_REPLICA_TYPE"] == kind.lower()
    assert found["SWEEPRUN_REPLICA_INDEX"] == {
        "fieldRef": {"fieldPath": "metadata.labels['training.kubeflow.org/replica-index']"}
    }
    assert found["SWEEPRUN_POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}


def test_the_templates_variables_come_after_ours_so_that_they_may_refer_to_them():
    own = [{"name": "OUT", "value": "$(SWEEPRUN_RUN_DIR)/out"}, {"name": "PET_MAX_RESTARTS", "value": "9"}]
    found = trainer(template=of_container(env=own))
    names = [item["name"] for item in found["env"]]
    assert names.index("OUT") > names.index("SWEEPRUN_RUN_DIR")
    assert environment(found)["PET_MAX_RESTARTS"] == "0", "ours wins"
    assert environment(found)["OUT"] == "$(SWEEPRUN_RUN_DIR)/out"


def test_a_python_may_be_named():
    assert "SWEEPRUN_PYTHON" not in literal(trainer())
    named = trainer(entrypoint={"pythonPath": "/opt/conda/bin/python"})
    assert literal(named)["SWEEPRUN_PYTHON"] == "/opt/conda/bin/python"


def test_a_stall_limit_is_told_where_there_is_one():
    assert "SWEEPRUN_STALL_SECONDS" not in literal(trainer())
    assert literal(trainer(limits={"stallTimeoutSeconds": 600}))["SWEEPRUN_STALL_SECONDS"] == "600"


def test_the_configuration_file_is_told_where_there_is_one():
    run = decided()
    status = run.status.model_copy(update={"config_file": "train_config_overrides.yaml"})
    found = trainer_of(BUILD.workload(run.model_copy(update={"status": status})))
    assert literal(found)["SWEEPRUN_CONFIG_FILE"] == f"{RUN_DIR}/train_config_overrides.yaml"


# -- W&B ---------------------------------------------------------------------------------------------------------------


def wandb(mode: str = "Online", **fields):
    return trainer(epoch=3, tracking={"type": "WandB", "wandb": {"mode": mode, **fields}})


def wandb_values(container):
    return {name: value for name, value in literal(container).items() if name.startswith("WANDB_")}


def test_without_tracking_wandb_is_left_to_the_user():
    assert wandb_values(trainer()) == {}


def test_a_run_keeps_its_wandb_run():
    found = wandb_values(wandb(entity="me", project="digits", group="lr", sweepId="abc"))
    assert found == {
        "WANDB_RUN_ID": RUN_ID,
        "WANDB_RESUME": "allow",
        "WANDB_MODE": "online",
        "WANDB_ENTITY": "me",
        "WANDB_PROJECT": "digits",
        "WANDB_RUN_GROUP": "lr",
        "WANDB_SWEEP_ID": "abc",
    }


def test_prepare_may_name_another_wandb_run():
    run = decided(tracking={"type": "WandB"})
    run = run.model_copy(update={"status": run.status.model_copy(update={"wandb_run_id": "linked"})})
    assert wandb_values(trainer_of(BUILD.workload(run)))["WANDB_RUN_ID"] == "linked"


def linked(**container):
    run = decided(tracking={"type": "WandB"}, template=of_container(**container))
    run = run.model_copy(update={"status": run.status.model_copy(update={"previous_wandb_run_id": "first"})})
    return environment(trainer_of(BUILD.workload(run)))


def test_a_linked_run_says_in_its_notes_where_its_beginning_is():
    assert linked()["WANDB_NOTES"] == "SweepRun digits-lr-0: the beginning of this run is in first."


def test_notes_of_the_template_stand():
    assert linked(env=[{"name": "WANDB_NOTES", "value": "mine"}])["WANDB_NOTES"] == "mine"


def test_a_run_that_is_its_own_beginning_leaves_the_notes_alone():
    assert "WANDB_NOTES" not in wandb_values(wandb())


def test_offline_every_epoch_has_a_directory_of_its_own():
    found = wandb_values(wandb("Offline"))
    assert (found["WANDB_MODE"], found["WANDB_DIR"]) == ("offline", f"{RUN_DIR}/wandb/e3")


def test_disabled_means_nothing_else():
    assert wandb_values(wandb("Disabled")) == {"WANDB_MODE": "disabled"}


# -- mounts ------------------------------------------------------------------------------------------------------------


def claim_volume(name: str = "mine", **fields):
    return {"name": name, "persistentVolumeClaim": {"claimName": "sweeps", **fields}}


def mounts(container):
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def test_the_volume_is_mounted_where_the_template_does_not():
    job = BUILD.workload(decided())
    assert mounts(trainer_of(job))["/data"] == {"name": "sweeprun-data", "mountPath": "/data"}
    assert {"name": "sweeprun-data", "persistentVolumeClaim": {"claimName": "sweeps"}} in pod_of(job)["volumes"]


def test_the_entrypoint_is_mounted_read_only():
    job = BUILD.workload(decided())
    mount = mounts(trainer_of(job))[ENTRYPOINT_PATH]
    assert mount["readOnly"] is True
    assert {"name": mount["name"], "emptyDir": {"sizeLimit": "64Mi"}} in pod_of(job)["volumes"]


def test_a_sub_path_of_the_claim_is_mounted():
    storage = {"persistentVolumeClaim": {"claimName": "sweeps", "subPath": "experiments"}, "mountPath": "/work"}
    mount = mounts(trainer(storage=storage))["/work"]
    assert mount["subPath"] == "experiments"


def test_a_mount_of_the_claim_is_reused():
    own = {"name": "mine", "mountPath": "/data"}
    job = BUILD.workload(decided(template=of_container(pod={"volumes": [claim_volume()]}, volumeMounts=[own])))
    assert mounts(trainer_of(job))["/data"] == own
    assert [volume["name"] for volume in pod_of(job)["volumes"]] == ["mine", "sweeprun-entrypoint"]


def test_a_volume_of_the_claim_that_is_mounted_elsewhere_is_used_for_our_mount():
    own = {"name": "mine", "mountPath": "/datasets", "subPath": "datasets", "readOnly": True}
    job = BUILD.workload(decided(template=of_container(pod={"volumes": [claim_volume()]}, volumeMounts=[own])))
    found = mounts(trainer_of(job))
    assert found["/datasets"] == own
    assert found["/data"] == {"name": "mine", "mountPath": "/data"}


def test_a_volume_of_the_claim_that_is_read_only_is_not_used_for_our_mount():
    template = of_container(pod={"volumes": [claim_volume(readOnly=True)]})
    assert mounts(trainer(template=template))["/data"]["name"] == "sweeprun-data"


def test_a_mount_that_is_read_only_by_its_volume_is_an_error_for_the_user():
    own = {"name": "mine", "mountPath": "/data"}
    with pytest.raises(ValueError, match="readOnly by its volume"):
        trainer(template=of_container(pod={"volumes": [claim_volume(readOnly=True)]}, volumeMounts=[own]))


def test_another_volume_at_our_path_is_an_error_for_the_user():
    own = {"name": "scratch", "mountPath": "/data"}
    with pytest.raises(ValueError, match="/data is another volume"):
        trainer(template=of_container(pod={"volumes": [{"name": "scratch", "emptyDir": {}}]}, volumeMounts=[own]))
