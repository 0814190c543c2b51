"""The command line without a cluster: what is wrong, which file was tried, which exit code says so."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from sweeprun_cli.__main__ import app
from sweeprun_cli.cluster.connection import explained
from sweeprun_cli.cluster.kubeconfig import Access
from sweeprun_cli.exits import Exit
from sweeprun_cli.requests import is_refusal
from sweeprun_operator.api.spec import RequestAction
from sweeprun_operator.cluster.gateway import GatewayError, NotFoundError, RefusedError

CONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: here, context: {cluster: c, user: u, namespace: sweeps}}]
users: [{name: u, user: {token: very-secret-token}}]
"""


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A home without a kubeconfig, outside a cluster."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        return CliRunner().invoke(app, list(arguments))

    return run


def file(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return str(path)


def test_without_a_kubeconfig_it_says_which_one_it_looked_for(shell, tmp_path):
    shown = shell("get")
    assert shown.exit_code == Exit.NO_CLUSTER
    assert f"{tmp_path}/.kube/config" in shown.stderr
    assert "sweeprun local run" in shown.stderr


def test_the_variable_is_named_where_it_leads_nowhere(shell, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/nowhere")
    assert "KUBECONFIG" in shell("why", "a").stderr


@pytest.mark.parametrize(
    ("text", "arguments", "code", "said"),
    [
        ("{", (), Exit.NO_CLUSTER, "no valid YAML (line 1)"),
        ("users: [{user: {token: very-secret-token", (), Exit.NO_CLUSTER, "no valid YAML"),
        ("very-secret-token", (), Exit.NO_CLUSTER, "cannot be used"),
        ("[very-secret-token]", (), Exit.NO_CLUSTER, "cannot be used"),
        ("", (), Exit.NO_CLUSTER, "cannot be used"),
        (CONFIG.replace("here", "x", 1), (), Exit.NO_CLUSTER, "cannot be used"),
        (CONFIG, ("--context", "there"), Exit.USAGE, "--context there"),
        (CONFIG, (), Exit.NO_CLUSTER, "http://127.0.0.1:1"),
    ],
)
def test_a_kubeconfig_that_leads_nowhere_is_named_and_its_secrets_are_not(shell, tmp_path, text, arguments, code, said):
    path = file(tmp_path, text)
    shown = shell("get", "--kubeconfig", path, *arguments)
    assert shown.exit_code == code, shown.stderr
    assert said in shown.stderr
    assert path in shown.stderr
    assert "very-secret" not in shown.output


def test_a_file_that_is_not_there_is_wrong_use(shell):
    assert shell("get", "--kubeconfig", "/nowhere").exit_code == Exit.USAGE


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "a", "--sweep", "s"),
        ("get", "a", "-A"),
        ("watch", "a", "-A"),
        ("report",),
        ("report", "a", "--sweep", "s"),
        ("get", "-o", "xml"),
        ("retry",),
        ("retry", "a", "--from", "-1"),
        ("nonsense",),
    ],
)
def test_wrong_use_is_exit_code_2(shell, arguments):
    assert shell(*arguments).exit_code == Exit.USAGE


def test_exit_codes_are_distinct_for_everything_that_can_go_wrong():
    access = Access(type("C", (), {"host": "http://c"}), "sweeps", "kubeconfig k")
    codes = [
        explained(error, access).code
        for error in (
            RefusedError("no", code=403),
            GatewayError("no", code=401),
            RefusedError("no", code=422),
            NotFoundError("no", code=404),
            GatewayError("no answer"),
        )
    ]
    assert codes == [Exit.FORBIDDEN, Exit.FORBIDDEN, Exit.REFUSED, Exit.NOT_FOUND, Exit.NO_CLUSTER]


def test_a_message_of_a_server_moves_no_terminal(shell):
    shown = shell("explain", "\x1b[2Jx")
    assert shown.exit_code == Exit.USAGE
    assert "\x1b[2J" not in shown.output


@pytest.mark.parametrize("action", list(RequestAction))
def test_the_operators_refusal_is_recognised(action):
    assert is_refusal(f"{action} refused: the run has ended", action)
    assert not is_refusal(f"{action} accepted", action)
