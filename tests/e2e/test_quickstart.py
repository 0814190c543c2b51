"""The quickstart's way on a cluster, by its very commands: apply, drain the node under the run, ask what happened."""

from __future__ import annotations

import pytest

from support.cluster import eventually
from support.continuation import EARLY, check_continued, pace
from support.documents import ROOT, Proof, commands
from support.nodes import execute

QUICKSTART = ROOT / "docs" / "quickstart.md"
LOOK_SECONDS = 3
"""For what shows until it is stopped."""


@pytest.fixture
def shell(cluster):
    """Runs documented commands in a shell as the document has it: in the clone, with the cluster's environment."""
    setting = next(one.text for one in commands(QUICKSTART) if one.proof is Proof.SHELL)

    def run(*lines):
        script = "\n".join(["set -eo pipefail", f"cd {ROOT}", setting, *lines])
        return execute(cluster, "bash", "-c", script, timeout=200)

    return run


def test_what_the_quickstart_does_on_a_cluster(shell, story, undisturbed):
    apply, look, node, drain, describe, uncordon, why, history, report = (
        one.text for one in commands(QUICKSTART) if one.proof is Proof.CLUSTER
    )
    told = story("digits")
    shell(apply)
    told.wait_step(EARLY)
    pace(told)
    assert "digits" in shell(f"timeout {LOOK_SECONDS} {look} || [ $? = 124 ]")
    shell(node, drain, uncordon)
    told.wait(lambda status: status["counts"].get("resumes"), "resumed")
    # an event follows the status that it tells of
    eventually(lambda: "Resumed" in shell(describe), "the resume is told", timeout=60)
    assert "Interrupted" in shell(describe)
    check_continued(told, "library", undisturbed, cause="EvictionAPI", since=EARLY)
    assert "EvictionAPI" in shell(history)
    assert "digits" in shell(why)
    page = ROOT / "report.html"
    try:
        shell(report)
        assert "EvictionAPI" in page.read_text()
    finally:
        page.unlink(missing_ok=True)
