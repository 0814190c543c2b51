"""Texts of tenants move no terminal, and numbers read well."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from support.shown import HOSTILE, harmless, shown_run
from sweeprun_cli.cluster.machine import MASK, machine
from sweeprun_cli.cluster.options import Format
from sweeprun_cli.plain import age, duration, neutral, neutralised

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@given(st.text())
def test_whatever_a_text_holds_it_becomes_harmless_and_keeps_its_length(text):
    assert harmless(neutral(text))
    assert len(neutral(text)) == len(text)


@pytest.mark.parametrize("text", ["plain", "grün", "学習", "a b", ""])
def test_a_harmless_text_stays_what_it_is(text):
    assert neutral(text) == text


def test_escape_sequences_are_shown_and_not_obeyed():
    assert neutral("\x1b[2J") == "␛[2J"
    assert neutralised({"\x1b": ["a\nb", {"c": HOSTILE}], "n": 1}) == {"␛": ["a b", {"c": neutral(HOSTILE)}], "n": 1}


@pytest.mark.parametrize("form", [Format.JSON, Format.YAML])
def test_machines_get_the_same_object_without_a_byte_that_moves_a_terminal(form):
    raw = shown_run(config={"note": HOSTILE})
    text = machine(raw, form)
    assert harmless(text)
    read = json.loads if form is Format.JSON else yaml.safe_load
    assert read(text) == raw


def test_secrets_in_plain_text_are_masked():
    raw = shown_run(config={"lr": "1", "WANDB_API_KEY": "k-secret"})
    container = raw["spec"]["template"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "HF_TOKEN", "value": "t-secret"}, {"name": "EPOCHS", "value": "3"}]
    raw["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "t-secret", "note": "kept"}
    shown = machine(raw, Format.YAML)
    assert "secret" not in shown
    assert shown.count(MASK) == 2
    assert "EPOCHS" in shown
    assert "kept" in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "unknown"),
        (0, "0 s"),
        (2.46, "2.5 s"),
        (59, "59 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (7260, "2 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d"), (170_000, "47h")]
)
def test_ages_are_those_of_kubectl(seconds, text):
    assert age(NOW, NOW + timedelta(seconds=seconds)) == text


def test_an_age_of_nothing_is_unknown():
    assert age(None, NOW) == "unknown"
