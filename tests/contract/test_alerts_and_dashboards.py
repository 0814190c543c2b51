"""Rules and dashboards ask for series that are served, by labels and words that exist; each alert has its runbook."""

import json
import re
from pathlib import Path

import promql_parser
import pytest

from support.promql import DASHBOARDS, alerts, expressions, nodes, recorded, rules, selectors, series, words_of
from sweeprun_operator.metric_catalogue import CATALOGUE

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
HEADINGS = ["## What it means", "## What to look at", "## What to do"]


@pytest.mark.parametrize("expression", expressions(), ids=str)
def test_it_asks_for_series_that_are_served(expression):
    known = series()
    asked = selectors(expression.tree)
    assert asked or expression.text.startswith("vector(")
    for selector in asked:
        assert selector.name in known, f"no such series: {selector.name}"
        for matcher in selector.matchers.matchers:
            words = known[selector.name].get(matcher.name)
            assert words is not None, f"{selector.name} has no label {matcher.name}"
            assert set(words_of(matcher)) <= set(words), f"{selector.name}: {matcher.name} is never {matcher.value}"


@pytest.mark.parametrize("expression", expressions(), ids=str)
def test_it_groups_by_labels_that_are_there(expression):
    known = series()
    for node in nodes(expression.tree):
        modifier = getattr(node, "modifier", None)
        if isinstance(node, promql_parser.AggregateExpr) and modifier is not None:
            for selector in selectors(node):
                assert set(modifier.labels) <= set(known[selector.name]), f"{selector.name} is not by {modifier.labels}"


@pytest.mark.parametrize("expression", expressions(), ids=str)
def test_counters_are_asked_how_much_they_grew(expression):
    growing = {name for name in series() if name.endswith(("_total", "_bucket", "_count"))}
    within = {
        selector
        for node in nodes(expression.tree)
        if isinstance(node, promql_parser.Call) and node.func.name in ("rate", "increase")
        for selector in (one.name for one in selectors(node))
    }
    asked = {selector.name for selector in selectors(expression.tree)}
    assert asked & growing <= within
    assert within <= growing | {name for name in series() if name.endswith("_sum")}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_is_the_matter(alert):
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description"}
    named = re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values()))
    tree = promql_parser.parse(alert["expr"])
    kept = [
        set(node.modifier.labels) for node in nodes(tree) if getattr(node, "modifier", None) and hasattr(node, "param")
    ]
    assert all(set(named) <= labels for labels in kept) if named else True
    assert not named or kept, "the labels that the text names are summed away"


def test_every_alert_has_its_runbook_and_every_runbook_its_alert():
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == {alert["alert"] for alert in alerts()}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_a_runbook_says_what_it_means_what_to_look_at_and_what_to_do(alert):
    lines = (RUNBOOKS / f"{alert['alert']}.md").read_text().splitlines()
    assert lines[0] == f"# {alert['alert']}"
    assert [line for line in lines if line.startswith("## ")] == HEADINGS


def test_names_are_given_once():
    names = [rule.get("alert") or rule["record"] for rule in rules()]
    assert len(names) == len(set(names))
    assert len({metric.full_name for metric in CATALOGUE}) == len(CATALOGUE)


def test_the_five_figures_are_recorded():
    assert recorded() == {
        "sweeprun:resume_success:ratio_increase1d",
        "sweeprun:gpu_seconds_kept:increase1d",
        "sweeprun:utilisation:ratio_increase1d",
        "sweeprun:attempt_failure:ratio_increase1d",
        "sweeprun:fallback:ratio_increase1d",
    }
    shown = {selector.name for expression in expressions() for selector in selectors(expression.tree)}
    assert recorded() <= shown


@pytest.mark.parametrize("path", sorted(DASHBOARDS.glob("*.json")), ids=lambda path: path.stem)
def test_panels_have_places_of_their_own(path):
    board = json.loads(path.read_text())
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
