"""What a container says becomes a process of this machine."""

from __future__ import annotations

import pytest

from sweeprun_cli.local.containers import LOCAL_ENVIRON, Machine, UnplayableError, inherited, program

PYTHON = "/venv/bin/python"
MESSAGE = "/logs/pod/trainer.message"


def machine(**more):
    paths = (("/data", "/tmp/volume"), ("/opt/sweeprun/examples", "/repo/examples"))
    return Machine(python=PYTHON, paths=paths, environ=more.pop("environ", {}), directory="/repo", **more)


def pod(**labels):
    metadata = {"name": "run-a0-worker-1", "namespace": "default", "uid": "uid-1", "labels": labels}
    return {"metadata": metadata, "spec": {"nodeName": "this-machine"}}


def played(container, *, labels=None, extra=None, **more):
    given = {"name": "pytorch", **container}
    return program(pod(**(labels or {})), given, machine(**more), extra=extra or {}, message_file=MESSAGE)


def env(**values):
    return [{"name": name, "value": value} for name, value in values.items()]


def test_the_wrapper_becomes_the_entrypoint_of_this_installation():
    one = played({"command": ["/bin/sh", "/sweeprun/run.sh", "python", "train.py"], "args": ["--lr", "0.1"]})
    entrypoint = (PYTHON, "-P", "-m", "sweeprun_trainer", "exec", "--")
    assert one.arguments == (*entrypoint, PYTHON, "train.py", "--lr", "0.1")


def test_the_start_check_is_that_of_this_installation():
    one = played({"command": ["python", "/opt/sweeprun/sweeprun.pyz", "check"]})
    assert one.arguments == (PYTHON, "-P", "-m", "sweeprun_trainer", "check")


@pytest.mark.parametrize("name", ["python", "python3", "python3.12", "/usr/bin/python3", "/opt/conda/bin/python"])
def test_any_python_becomes_this_interpreter(name):
    assert played({"command": [name, "train.py"]}).arguments == (PYTHON, "train.py")


@pytest.mark.parametrize("name", ["pythonic", "torchrun", "/bin/ipython"])
def test_other_programs_stay(name):
    assert played({"command": [name, "train.py"]}).arguments[0] == name


def test_prepare_answers_into_the_file_of_its_pod():
    one = played({"command": ["python", "-m", "sweeprun_volume", "prepare", "--root", "/data"]})
    assert one.arguments[:6] == (PYTHON, "-m", "sweeprun_volume", "prepare", "--root", "/tmp/volume")
    assert one.arguments[6:8] == ("--report", MESSAGE)


@pytest.mark.parametrize(
    ("inside", "here"),
    [
        ("/data", "/tmp/volume"),
        ("/data/x", "/tmp/volume/x"),
        ("--out=/data/x", "--out=/tmp/volume/x"),
        ("/data:/data/x", "/tmp/volume:/tmp/volume/x"),
        ("/database", "/database"),
        ("/mnt/data", "/mnt/data"),
        ("https://host/data", "https://host/data"),
        ("/opt/sweeprun/examples/digits/train.py", "/repo/examples/digits/train.py"),
    ],
)
def test_paths_of_the_container_become_paths_of_this_machine(inside, here):
    one = played({"command": ["run", inside], "env": env(WHERE=inside)})
    assert one.arguments[1] == here
    assert one.environ["WHERE"] == here


def test_the_request_of_prepare_is_not_touched():
    request = '{"configuration":{"text":"out: /data/x"}}'
    one = played({"command": ["run"], "env": env(SWEEPRUN_PREPARE_REQUEST=request)})
    assert one.environ["SWEEPRUN_PREPARE_REQUEST"] == request


def test_references_are_expanded_as_kubernetes_does():
    one = played({"command": ["run", "$(A)", "$$(A)", "$(UNKNOWN)", "$A"], "env": env(A="1", B="$(A)2")})
    assert one.arguments == ("run", "1", "$(A)", "$(UNKNOWN)", "$A")
    assert one.environ["B"] == "12"


def test_the_downward_api_tells_who_the_pod_is():
    fields = {
        "NAME": "metadata.name",
        "UID": "metadata.uid",
        "INDEX": "metadata.labels['training.kubeflow.org/replica-index']",
        "NODE": "spec.nodeName",
        "IP": "status.podIP",
    }
    variables = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    one = played({"command": ["run"], "env": variables}, labels={"training.kubeflow.org/replica-index": "1"})
    assert {name: one.environ[name] for name in fields} == {
        "NAME": "run-a0-worker-1",
        "UID": "uid-1",
        "INDEX": "1",
        "NODE": "this-machine",
        "IP": "127.0.0.1",
    }


def secret(name, **more):
    return [{"name": name, "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", **more}}}]


def test_a_secret_is_what_the_environment_holds_under_its_name():
    one = played({"command": ["run"], "env": secret("WANDB_API_KEY")}, environ={"WANDB_API_KEY": "mine"})
    assert one.environ["WANDB_API_KEY"] == "mine"


def test_a_secret_that_is_nowhere_is_told():
    with pytest.raises(UnplayableError, match="WANDB_API_KEY comes from secretKeyRef"):
        played({"command": ["run"], "env": secret("WANDB_API_KEY")})
    assert "WANDB_API_KEY" not in played({"command": ["run"], "env": secret("WANDB_API_KEY", optional=True)}).environ


def test_a_container_without_a_command_cannot_be_played():
    with pytest.raises(UnplayableError, match="no command"):
        played({"args": ["--lr", "0.1"]})


def test_what_a_pod_sets_wins_over_what_this_process_inherits():
    one = played({"command": ["run"], "env": env(A="pod")}, environ={"A": "mine", "B": "mine"})
    assert (one.environ["A"], one.environ["B"]) == ("pod", "mine")


def test_the_network_of_the_pod_wins_over_the_template():
    one = played({"command": ["run"], "env": env(SWEEPRUN_PORT="1")}, extra={"SWEEPRUN_PORT": "5000"})
    assert one.environ["SWEEPRUN_PORT"] == "5000"


def test_nothing_of_another_pod_is_inherited():
    given = {"HOME": "/home/me", "RANK": "3", "SWEEPRUN_EPOCH": "9", "MASTER_ADDR": "x", "PATH": "/bin", "RANKED": "1"}
    assert inherited(given, python=PYTHON) == {"HOME": "/home/me", "PATH": "/venv/bin:/bin", "RANKED": "1"}


def test_every_process_knows_that_nothing_is_far_away():
    environ = played({"command": ["run"]}).environ
    assert {name: environ[name] for name in LOCAL_ENVIRON} == LOCAL_ENVIRON
