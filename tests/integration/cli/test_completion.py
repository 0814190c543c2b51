"""Shells and kubectl complete commands, options and words."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sweeprun_cli import completion

ROOT = Path(__file__).parents[3]
PROGRAM = "#!{python}\nfrom sweeprun_cli.__main__ import main\nmain()\n"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["explain", "NothingC"], ["NothingCommitted"]),
        (["get", "-o", "y"], ["yaml"]),
        (["inspect", ""], []),
    ],
)
def test_kubectl_is_told_what_the_shell_is_told(words, wanted, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-sweeprun", *words])
    completion.main()
    *found, directive = capsys.readouterr().out.splitlines()
    assert found == wanted
    assert directive == (":4" if wanted else ":0")


def test_the_program_has_the_name_that_kubectl_looks_for():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["kubectl_complete-sweeprun"] == "sweeprun_cli.completion:main"
    assert scripts["kubectl-sweeprun"] == scripts["sweeprun"]


def test_bash_completes_after_the_documented_installation(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "sweeprun"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}"}
    lines = [
        "sweeprun --install-completion >&2",
        'source "$HOME/.bashrc"',
        "COMP_WORDS=(sweeprun sus) COMP_CWORD=1",
        "_sweeprun_completion sweeprun",
        'echo "${COMPREPLY[@]}"',
    ]
    said = subprocess.run(
        ["bash", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert said.stdout == "suspend\n", said.stderr
