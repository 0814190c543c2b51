"""`kubectl get srun` as people see it: the table that the API server renders, found by short name and category."""

import subprocess

import pytest

from support.control_plane.programs import program
from support.manifests import make_sweeprun

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
NOW = "2026-01-01T00:00:00Z"
STATUS = {
    "phase": "Running",
    "runId": "digits-lr.7",
    "current": {"attempt": 2, "prepare": 3, "state": "Running", "since": NOW},
    "progress": {"step": 740, "time": NOW},
    "counts": {"resumes": 2},
    "savings": {"stepsKept": 500},
    "checkpoint": {"step": 700, "epoch": 3, "path": "checkpoints/step-000000700.e3", "format": "SweepRun"},
    "conditions": [
        {
            "type": "Accepted",
            "status": "True",
            "reason": "Valid",
            "message": "",
            "lastTransitionTime": NOW,
            "observedGeneration": 1,
        }
    ],
}


@pytest.fixture
def running(cluster):
    cluster.create(make_sweeprun())
    cluster.patch("SweepRun", "digits-lr-0", {"status": STATUS}, subresource="/status")
    return cluster


def test_the_table_tells_where_the_run_stands(running):
    table = running.call("GET", running._path("SweepRun"), headers={"Accept": TABLE})
    columns = {column["name"]: column for column in table["columnDefinitions"]}
    row = dict(zip(columns, table["rows"][0]["cells"], strict=True))
    age = row.pop("Age")
    assert age.endswith("s")
    assert row == {
        "Name": "digits-lr-0",
        "Phase": "Running",
        "Attempt": 2,
        "Step": 740,
        "Resumes": 2,
        "Kept": 500,
        "Sweep": "digits-lr",
        "Run": "digits-lr.7",
        "Checkpoint": 700,
        "Accepted": "Valid",
    }
    shown = [name for name, column in columns.items() if column["priority"] == 0]
    assert shown == ["Name", "Phase", "Attempt", "Step", "Resumes", "Kept", "Age"]


def test_a_run_that_nobody_has_looked_at_yet_has_empty_cells(cluster):
    cluster.create(make_sweeprun())
    table = cluster.call("GET", cluster._path("SweepRun"), headers={"Accept": TABLE})
    assert table["rows"][0]["cells"][1:6] == [None] * 5


@pytest.mark.parametrize("word", ["srun", "sweeps", "sweepruns.sweeprun.dev"])
def test_kubectl_finds_runs_by_short_name_and_category(word, running):
    answer = subprocess.run(
        [program("kubectl"), "--kubeconfig", running.kubeconfig, "-n", running.namespace, "get", word],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    header, row = answer.stdout.splitlines()
    assert header.split() == ["NAME", "PHASE", "ATTEMPT", "STEP", "RESUMES", "KEPT", "AGE"]
    assert row.split()[:6] == ["digits-lr-0", "Running", "2", "740", "2", "500"]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("spec.sweepName=digits-lr", 1),
        ("spec.sweepName=other", 0),
        ("status.phase=Running", 1),
        ("status.phase=Failed", 0),
    ],
)
def test_the_server_selects_runs_by_sweep_and_phase(selector, found, running):
    answer = running.call("GET", running._path("SweepRun"), params={"fieldSelector": selector})
    assert len(answer["items"]) == found


def test_status_is_written_through_its_subresource_alone(running):
    there = running.patch("SweepRun", "digits-lr-0", {"status": {"phase": "Failed"}})
    assert there["status"]["phase"] == "Running"
    there = running.patch("SweepRun", "digits-lr-0", {"spec": {"suspend": True}}, subresource="/status")
    assert there["spec"]["suspend"] is False
