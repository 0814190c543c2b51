"""Every word that SweepRun says has a text, and there is one place for it."""

from __future__ import annotations

import ast
import re
from enum import Enum
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweeprun_cli.__main__ import app
from sweeprun_cli.exits import Exit
from sweeprun_cli.explain.causes import CAUSES, KINDS, OUTCOMES, START_REASONS
from sweeprun_cli.explain.conditions import ACCEPTANCE, CONDITIONS, STATES
from sweeprun_cli.explain.exit_codes import COMMAND, CONTAINER
from sweeprun_cli.explain.refusals import BLOCKED, REFUSALS
from sweeprun_cli.explain.words import FAMILIES, advice_for, entries, words
from sweeprun_operator.api.acceptance import Reason
from sweeprun_operator.api.status import Cause, Kind, State
from sweeprun_operator.core import refusals
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_protocol.reasons import BlockedReason, Outcome, RefusalReason, StartReason

CORE = Path(__file__).parents[3] / "operator" / "sweeprun_operator" / "core"
POSITION = {"stuck": 0, "condition": 2, "fail": 1, "Spent": 0, "_refuse": 1}
"""Where calls have the reason of a condition."""

TABLES = [
    (Cause, CAUSES),
    (Kind, KINDS),
    (Outcome, OUTCOMES),
    (StartReason, START_REASONS),
    (Reason, ACCEPTANCE),
    (State, STATES),
    (BlockedReason, BLOCKED),
    (RefusalReason, REFUSALS),
    (ExitCode, CONTAINER),
    (Exit, COMMAND),
]


@pytest.mark.parametrize(("kind", "texts"), TABLES, ids=lambda value: getattr(value, "__name__", ""))
def test_every_word_of_a_closed_set_has_a_text(kind: type[Enum], texts):
    assert set(texts) == set(kind)


def reasons_in(tree: ast.AST):
    """Words in plain text where a call takes the reason of a condition; also `(reason, ...)` rows of budgets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            position = POSITION.get(called)
            given = [node.args[position]] if position is not None and len(node.args) > position else []
            given += [word.value for word in node.keywords if word.arg == "stuck"]
            yield from (one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str))
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch("(Max|Active)[A-Za-z]+Exceeded", node.value)
        ):
            yield node.value


def test_every_reason_that_the_decisions_write_has_a_text():
    found = {reason for path in sorted(CORE.glob("*.py")) for reason in reasons_in(ast.parse(path.read_text()))}
    assert {"NodeUnreachable", "TemplateRefused", "MaxFailuresExceeded", "Stopped", "OwnerNotGone"} <= found
    reasons = {word for word in found if " " not in word} | set(refusals.REASONS)
    assert not [word for word in sorted(reasons) if advice_for(word) is None]


def test_no_text_is_empty_and_all_are_sentences():
    for family in FAMILIES:
        for word, entry in family.entries.items():
            assert entry.meaning.endswith("."), word
            assert not entry.advice[:1].islower() or entry.advice.startswith("docs/"), word


def test_a_word_is_found_whatever_its_case_with_all_of_its_meanings():
    assert [title for title, _, _ in entries("completed")] == [
        "cause of an attempt's end",
        "reason of a condition",
        "what prepare decided",
    ]
    assert [known for _, known, _ in entries("nodeunreachable")] == ["NodeUnreachable"]
    assert not list(entries("Nonsense"))


@pytest.mark.parametrize(
    ("code", "said"), [("83", "training container"), ("137", "SIGKILL"), ("143", "SIGTERM"), ("4", "sweeprun")]
)
def test_exit_codes_are_explained(code, said):
    shown = CliRunner().invoke(app, ["explain", code])
    assert shown.exit_code == 0
    assert said in shown.stdout


def test_a_cause_says_what_it_counts_as():
    assert "Counts as: Disruption" in CliRunner().invoke(app, ["explain", "PodLost"]).stdout


def test_a_word_that_is_none_is_wrong_use_with_the_nearest_ones():
    shown = CliRunner().invoke(app, ["explain", "PodLots"])
    assert shown.exit_code == Exit.USAGE
    assert "PodLost" in shown.stderr


def test_without_a_word_all_are_listed():
    listed = CliRunner().invoke(app, ["explain"]).stdout
    assert all(word in listed for word in words())


def test_conditions_are_words_of_the_api():
    assert all(word.isalpha() for word in CONDITIONS)
