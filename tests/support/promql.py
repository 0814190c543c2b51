"""What a PromQL expression asks of which series, by the parser of promql-parser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser
import yaml

from support.helm import CHART
from sweeprun_operator.metric_catalogue import CATALOGUE, PREFIX, Type

RULES = CHART / "files" / "rules"
DASHBOARDS = CHART / "files" / "dashboards"
GRAFANA = {"$__rate_interval": "5m", "$__range": "1d"}
"""Variables that Grafana puts in, with a value that parses."""


@dataclass(frozen=True)
class Expression:
    where: str
    text: str

    def __str__(self) -> str:
        return self.where

    @property
    def tree(self) -> Any:
        return promql_parser.parse(self.text)


def rules() -> list[dict[str, Any]]:
    """Recording and alerting rules, in their order."""
    groups = [group for path in sorted(RULES.glob("*.yaml")) for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def expressions() -> list[Expression]:
    """Of all rules and of all panels."""
    found = [Expression(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            found += [Expression(f"{path.stem}: {panel['title']}", _plain(one["expr"])) for one in panel["targets"]]
    return found


def _plain(text: str) -> str:
    for variable, value in GRAFANA.items():
        text = text.replace(variable, value)
    return text


def nodes(tree: Any) -> Iterator[Any]:
    yield tree
    for name in ("lhs", "rhs", "expr", "param", "args", "vector_selector"):
        below = getattr(tree, name, None)
        for one in below if isinstance(below, list) else [below]:
            if isinstance(one, promql_parser.Expr):
                yield from nodes(one)


def selectors(tree: Any) -> list[Any]:
    return [node for node in nodes(tree) if isinstance(node, promql_parser.VectorSelector)]


def series() -> dict[str, dict[str, tuple[str, ...]]]:
    """Names of all series that /metrics serves and rules record, with their labels and the words of these."""
    found: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in recorded()}
    for metric in CATALOGUE:
        labels = dict(metric.labels)
        if metric.type is Type.HISTOGRAM:
            bounds = tuple(str(float(bound)) for bound in (*metric.buckets, float("inf")))
            base = f"{PREFIX}{metric.name}"
            found[f"{base}_bucket"] = {**labels, "le": bounds}
            found[f"{base}_sum"] = found[f"{base}_count"] = labels
        else:
            found[metric.full_name] = labels
    return found


def words_of(matcher: Any) -> list[str]:
    """The words that a matcher names: those of an alternative, where it is one."""
    return re.split(r"\|", str(matcher.value))
