"""Every command of docs/runbooks, against an API server with the chart installed and a run that is in trouble.

Logs are a kubelet's, and there is none: of `kubectl logs` the options and the object are checked.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess

import pytest
from typer.testing import CliRunner

from support.cluster import Cluster
from support.control_plane.programs import program
from support.documents import ROOT, commands
from support.helm import helm
from support.manifests import make_container, make_pod, make_sweeprun
from support.played import now
from support.shown import shown_attempt, shown_condition, shown_status
from sweeprun_cli.__main__ import app

RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
COMMANDS = [
    pytest.param(command.text, id=f"{command.block.document.stem}: {command.text}") for command in commands(*RUNBOOKS)
]
NAMESPACE, RUN = "sweeps", "digits-lr-0"
OF_PREPARE = {"sweeprun.dev/name": RUN, "sweeprun.dev/role": "prepare"}


@pytest.fixture(scope="module")
def trouble(installed) -> Cluster:
    """Two runs, one stuck and one preparing, with what the operator leaves of them: Events, Jobs, pods."""
    cluster = installed.plane.cluster(NAMESPACE)
    stuck = shown_condition("Stuck", reason="NodeUnreachable", message="node gpu-7 does not answer")
    for name, status in (
        (RUN, shown_status("Draining", phase="Stuck", conditions=[stuck])),
        ("digits-lr-1", shown_status("Preparing", history=[shown_attempt()])),
    ):
        cluster.create(make_sweeprun(name))
        cluster.patch("SweepRun", name, {"status": status}, subresource="/status")
    pod = make_pod(make_container(name="prepare"), restartPolicy="Never")
    metadata = {"name": f"{RUN}-p1", "labels": OF_PREPARE}
    cluster.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": pod}})
    cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]})
    for reason in ("FreshStart", "CheckpointRefused"):
        cluster.create(event(cluster, reason))
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "sweeprun"}}
    installed.system.create(lease)
    return cluster


def event(cluster: Cluster, reason: str) -> dict:
    run = cluster.get("SweepRun", RUN)
    assert run is not None
    about = {key: run["metadata"][key] for key in ("name", "namespace", "uid")}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": RUN},
        "involvedObject": {"apiVersion": run["apiVersion"], "kind": run["kind"], **about},
        "type": "Warning",
        "reason": reason,
        "message": "said by the test",
        "firstTimestamp": now(),
        "lastTimestamp": now(),
    }


@pytest.fixture
def environment(trouble, monkeypatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(trouble.kubeconfig))
    monkeypatch.setenv("PATH", f"{program('kubectl').parent}:{helm().parent}:{os.environ['PATH']}")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)


def test_there_are_commands_in_every_runbook():
    assert all(list(commands(path)) for path in RUNBOOKS)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_does_what_it_is_there_for(line, environment):
    words = shlex.split(line)
    if words[0] == "sweeprun":
        answer = CliRunner().invoke(app, words[1:])
        assert answer.exit_code == 0, answer.output
        assert answer.output.strip()
        return
    assert words[0] in ("kubectl", "helm"), f"nothing runs `{words[0]}`"
    if "logs" in words:
        check_logs(words)
        return
    answer = shell(line)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip(), answer.stderr
    if "can-i" in words:
        assert answer.stdout.strip() == "yes"


def check_logs(words: list[str]) -> None:
    at = words.index("logs")
    options = {word.split("=")[0] for word in words[at + 1 :] if word.startswith("--")}
    known = set(re.findall(r"--[a-z-]+", shell("kubectl logs --help").stdout))
    assert options <= known
    (target,) = [word for word in words[at + 1 :] if not word.startswith("-")]
    found = shell(shlex.join([*words[:at], "get", target, "-o", "name"]))
    assert found.returncode == 0, found.stderr


def test_a_command_that_finds_nothing_would_be_noticed(environment):
    answer = shell("kubectl -n sweeps get srun --field-selector status.phase=Completed -o name")
    assert (answer.returncode, answer.stdout) == (0, "")
    assert CliRunner().invoke(app, ["why", "nobody", "-n", NAMESPACE]).exit_code != 0
