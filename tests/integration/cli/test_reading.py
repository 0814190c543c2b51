"""What people see of runs on a real API server, and which exit code says what went wrong."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import yaml
from typer.testing import CliRunner

from support.cluster import eventually
from support.rights import kubeconfig_of_operator
from support.shown import HOSTILE, harmless, shown_attempt, shown_condition, shown_status
from sweeprun_cli.__main__ import app
from sweeprun_cli.exits import Exit


def test_runs_are_listed_as_kubectl_lists_them(shell):
    shell.make()
    shell.make("other", sweepName="other-sweep")
    header, first, second = shell("get").stdout.splitlines()
    assert header.split() == ["NAME", "PHASE", "ATTEMPT", "STEP", "RESUMES", "KEPT", "AGE"]
    assert first.split()[:6] == ["digits-lr-0", "Running", "1", "720", "1", "700"]
    assert second.split()[0] == "other"
    assert shell("get", "--sweep", "other-sweep", "-o", "wide").stdout.splitlines()[1].split()[6] == "other-sweep"
    assert "other" not in shell("get", "digits-lr-0").stdout
    everywhere = shell("get", "-A").stdout
    assert shell.cluster.namespace in everywhere
    names = [item["metadata"]["name"] for item in json.loads(shell("get", "-o", "json").stdout)["items"]]
    assert names == ["digits-lr-0", "other"]
    assert yaml.safe_load(shell("get", "other", "-o", "yaml").stdout)["spec"]["sweepName"] == "other-sweep"


def test_one_run_is_told_in_every_way_without_a_hostile_byte(shell, tmp_path):
    hostile = [shown_attempt(evidence=HOSTILE, node=HOSTILE)]
    shell.make(status=shown_status(history=hostile, conditions=[shown_condition("Stuck", message=HOSTILE)]))
    for arguments in (
        ("why", "digits-lr-0"),
        ("why", "digits-lr-0", "-o", "json"),
        ("history", "digits-lr-0", "-o", "wide"),
        ("history", "digits-lr-0", "-o", "yaml"),
        ("inspect", "digits-lr-0"),
        ("advise", "digits-lr-0", "--save-seconds", "2"),
        ("adopt", "digits-lr-0"),
        ("get", "digits-lr-0", "-o", "wide"),
        ("report", "--sweep", "digits-lr", "-o", "-"),
    ):
        shown = shell(*arguments)
        assert shown.exit_code == 0, (arguments, shown.output)
        assert harmless(shown.stdout), arguments
    page = tmp_path / "report.html"
    assert shell("report", "digits-lr-0", "-o", str(page)).exit_code == 0
    assert "<script" not in page.read_text()
    assert "sweep/digits-lr/runs/digits-lr.7" in shell("inspect", "digits-lr-0").stdout


def test_adopt_tells_which_runs_of_the_sweep_live(shell):
    shell.make(status={"phase": "Pending"})
    shell.make("alive", status=shown_status(runId="one"))
    shell.make("failed", status=shown_status(phase="Failed", runId="two"))
    shell.make("complete", status=shown_status(phase="Completed", runId="three"))
    elsewhere = {"persistentVolumeClaim": {"claimName": "another"}}
    shell.make("elsewhere", status=shown_status(runId="four"), storage=elsewhere)
    rows = [line for line in shell("adopt", "digits-lr-0").stdout.splitlines() if line.split()[:1]]
    assert any(line.startswith("one") and "no: its SweepRun lives" in line for line in rows)
    assert any(line.startswith("two") and "yes" in line for line in rows)
    assert not [line for line in rows if line.startswith(("three", "four"))]


def test_what_is_not_there_is_said_to_be_not_there(shell):
    shown = shell("why", "nobody")
    assert shown.exit_code == Exit.NOT_FOUND
    assert f"no SweepRun nobody in namespace {shell.cluster.namespace}" in shown.stderr
    assert shell("report", "--sweep", "nothing").exit_code == Exit.NOT_FOUND
    assert shell("get").exit_code == 0


def test_without_rights_it_says_which_are_missing(shell, tmp_path):
    shell.make()
    account = kubeconfig_of_operator(shell.cluster, tmp_path)
    for arguments in (["get", "-A"], ["stop", "digits-lr-0", "-n", "default"]):
        shown = CliRunner().invoke(app, [*arguments, "--kubeconfig", str(account)])
        assert shown.exit_code == Exit.FORBIDDEN, shown.output
        assert "no rights" in shown.stderr
        assert "sweepruns" in shown.stderr


def test_watch_ends_with_the_run(shell):
    shell.make()
    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(shell, "watch", "digits-lr-0", "--every", "0.2")
        ended = shown_status(phase="Failed", conditions=[shown_condition("Failed", reason="Stopped")])
        shell.tell("digits-lr-0", ended)
        shown = eventually(lambda: watching.done() and watching.result(), "watch ends", timeout=60)
    assert shown.exit_code == Exit.FAILED
    assert shown.stdout.splitlines()[-1].split()[2] == "Failed"


def test_watching_what_is_complete_ends_at_once(shell):
    shell.make(status=shown_status(phase="Completed", conditions=[shown_condition("Complete")]))
    assert shell("watch", "digits-lr-0").exit_code == Exit.OK
