"""The one-trial form of a W&B sweep: examples/wandb-sweep asks for a trial, and every attempt goes on with its run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from support.volume_sweep import with_init
from support.wandb_server import RunningServer, serve
from sweeprun_operator.api.acceptance import problems
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol.environ import INIT_DIR
from sweeprun_volume.inits import make_init_directory, publish_init
from sweeprun_volume.operations import Volume

from .conftest import ENTITY, PROJECT, StartClient

EXAMPLE = Path(__file__).parents[3] / "examples" / "wandb-sweep"
KEY = "uid-0-0"


@dataclasses.dataclass(frozen=True)
class Shared:
    found: bool = True
    access_modes: tuple[str, ...] = ("ReadWriteMany",)


def graphql(server: RunningServer, operation: str, **variables: str) -> dict[str, object]:
    body = json.dumps({"operationName": operation, "variables": variables}).encode()
    with urllib.request.urlopen(f"{server.url}/graphql", body) as answer:
        return dict(json.load(answer)["data"])


@pytest.fixture
def sweep(server: RunningServer) -> str:
    """Of two trials."""
    config = json.dumps({"method": "grid", "parameters": {"lr": {"values": [0.1, 0.2]}, "seed": {"values": [17]}}})
    made = graphql(server, "UpsertSweep", entityName=ENTITY, projectName=PROJECT, config=config)
    return str(made["upsertSweep"]["sweep"]["name"])  # type: ignore[index]


def init(server: RunningServer, sweep: str, root: Path, pod: str) -> subprocess.CompletedProcess[str]:
    directory = root / make_staging(root, pod)
    place = {"WANDB_ENTITY": ENTITY, "WANDB_PROJECT": PROJECT, "WANDB_SWEEP_ID": sweep, INIT_DIR: str(directory)}
    environ = {**server.client_environ(str(root)), **place}
    command = [sys.executable, str(EXAMPLE / "sweep_init.py")]
    return subprocess.run(command, env=environ, capture_output=True, text=True)


def make_staging(root: Path, pod: str) -> str:
    return make_init_directory(Volume(str(root)), key=KEY, staging=pod)


def test_a_trial_of_the_sweep_becomes_the_run_and_stays_it(
    server: RunningServer, sweep: str, start_client: StartClient, tmp_path: Path
) -> None:
    done = init(server, sweep, tmp_path, "pod-a")
    assert done.returncode == 0, done.stderr
    published = publish_init(Volume(str(tmp_path)), dataclasses.replace(with_init(), init_key=KEY), staging="pod-a")
    trial = published.wandb_run_id
    assert trial == f"{sweep}trial0"
    config = tmp_path / make_staging(tmp_path, "pod-a") / "train_config_overrides.yaml"
    assert yaml.safe_load(config.read_text()) == {"lr": 0.1, "seed": 17}

    told = {"WANDB_RUN_ID": trial, "WANDB_SWEEP_ID": sweep, "WANDB_RESUME": "allow"}
    for first, last in ((0, 2), (3, 5)):
        client = start_client(told)
        client.log(first, last)
        client.finish()
    assert server.run(ENTITY, PROJECT, trial).steps == list(range(6))
    assert server.journal().ids(ENTITY, PROJECT, sweep=sweep) == [trial]


def test_every_fresh_start_draws_another_trial_until_there_is_none(
    server: RunningServer, sweep: str, tmp_path: Path
) -> None:
    drawn = [init(server, sweep, tmp_path, pod) for pod in ("pod-a", "pod-b", "pod-c")]
    assert [done.returncode for done in drawn] == [0, 0, 1]
    assert [done.stdout.split()[0] for done in drawn[:2]] == [f"{sweep}trial0", f"{sweep}trial1"]
    assert "no trial for us" in drawn[2].stderr
    assert list((tmp_path / make_staging(tmp_path, "pod-c")).iterdir()) == []


def test_without_the_server_nothing_is_left_for_publication(tmp_path: Path) -> None:
    with serve() as server:
        away = server
    done = init(away, "sweep0", tmp_path, "pod-a")
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert list((tmp_path / make_staging(tmp_path, "pod-a")).iterdir()) == []


def test_the_manifest_of_the_example_is_accepted() -> None:
    raw = yaml.safe_load((EXAMPLE / "sweeprun.yaml").read_text())
    raw["metadata"] |= {"namespace": "sweeps", "uid": "u", "resourceVersion": "1", "generation": 1}
    assert problems(SweepRun.from_wire(raw).spec, Shared()) == []
