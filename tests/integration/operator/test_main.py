"""The program as the container runs it: configured by environment, with the chart's rights, ended by SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import requests

from support.cluster import eventually
from support.manifests import make_claim, make_sweeprun
from support.ports import free_port
from support.rights import kubeconfig_of_operator


def answers(port, path):
    try:
        return requests.get(f"http://127.0.0.1:{port}{path}", timeout=2)
    except requests.RequestException:
        return None


@pytest.fixture
def environment(cluster, tmp_path):
    account = kubeconfig_of_operator(cluster, tmp_path)
    return {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(account),
        "SWEEPRUN_OPERATOR_IMAGE": "sweeprun/operator:test",
        "SWEEPRUN_OPERATOR_NAMESPACES": cluster.namespace,
        "SWEEPRUN_OPERATOR_LEASE_NAMESPACE": cluster.namespace,
        "SWEEPRUN_OPERATOR_LEASE_NAME": "sweeprun",
        "SWEEPRUN_OPERATOR_LISTEN": "127.0.0.1",
        "SWEEPRUN_OPERATOR_HEALTH_PORT": str(free_port()),
        "SWEEPRUN_OPERATOR_METRICS_PORT": str(free_port()),
    }


@pytest.fixture
def program(environment, tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "sweeprun_operator"], env=environment, stderr=file)
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()


def test_it_works_and_leaves_within_seconds_of_sigterm(cluster, environment, program, tmp_path):
    health = environment["SWEEPRUN_OPERATOR_HEALTH_PORT"]
    eventually(lambda: answers(health, "/readyz"), "it listens", timeout=60)
    eventually(lambda: answers(health, "/readyz").ok, "it is ready", timeout=30)
    assert answers(health, "/healthz").ok
    cluster.create(make_claim())
    cluster.create(make_sweeprun("run"))
    eventually(lambda: cluster.get("Job", "run-p0"), "prepare 0 is made", timeout=30)
    metrics = answers(environment["SWEEPRUN_OPERATOR_METRICS_PORT"], "/metrics").text
    assert "sweeprun_leading 1.0" in metrics
    asked = time.monotonic()
    program.send_signal(signal.SIGTERM)
    assert program.wait(15) == 0
    assert time.monotonic() - asked < 5
    assert not cluster.get("Lease", "sweeprun")["spec"].get("holderIdentity")
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "forbidden" not in log.lower()
    assert "registry.test/trainer" not in log, "specs are never logged"


def test_what_is_missing_is_said_at_once():
    answer = subprocess.run(
        [sys.executable, "-m", "sweeprun_operator"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert answer.returncode == 2
    assert "SWEEPRUN_OPERATOR_IMAGE is not set" in answer.stderr


def test_without_a_cluster_it_says_so():
    environment = {
        "PATH": os.environ["PATH"],
        "SWEEPRUN_OPERATOR_IMAGE": "i",
        "SWEEPRUN_OPERATOR_NAMESPACES": "n",
        "SWEEPRUN_OPERATOR_LEASE_NAMESPACE": "n",
    }
    answer = subprocess.run(
        [sys.executable, "-m", "sweeprun_operator"], env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 1
    assert "no way to the API server" in answer.stderr
