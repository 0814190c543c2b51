"""docs/command.md is what the commands say of themselves."""

from __future__ import annotations

from pathlib import Path

from sweeprun_cli.__main__ import app
from sweeprun_cli.document import DOCUMENT, document

ROOT = Path(__file__).parents[2]


def test_the_document_is_current():
    assert (ROOT / DOCUMENT).read_text() == document(), "run `make generate`"


def test_every_command_has_a_chapter_and_every_cell_a_text():
    text = document()
    for command in app.registered_commands:
        assert f"## `sweeprun {command.name or command.callback.__name__}" in text
    assert "--from STEP" in text
    assert "local run" in text
