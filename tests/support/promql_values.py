"""The value of a PromQL expression over what a metrics registry showed at three moments, as far as our rules need it.

Not Prometheus: a window is always the whole time between two moments, and nothing is extrapolated. What a rule says
(which sums it divides, which words it picks, which way a comparison points) comes out all the same.
"""

from __future__ import annotations

import math
import operator
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import promql_parser as promql
from prometheus_client import CollectorRegistry

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Sampled = dict[str, Vector]

_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda left, right: left / right if right else math.nan,
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "==": operator.eq,
}
_AGGREGATES: dict[str, Callable[[list[float]], float]] = {"sum": sum, "max": max}


def sampled(registry: CollectorRegistry) -> Sampled:
    found: Sampled = defaultdict(dict)
    for family in registry.collect():
        for sample in family.samples:
            found[sample.name][frozenset(sample.labels.items())] = sample.value
    return found


@dataclass(frozen=True)
class Moments:
    """`increase` is from `start` to `now`; with an offset, from `origin` to `start`."""

    now: Sampled
    start: Sampled = field(default_factory=dict)
    origin: Sampled = field(default_factory=dict)
    time: float = 0.0
    """Of `now`, seconds since 1970."""

    def value(self, text: str) -> Any:
        """A number, or numbers by their labels; empty: the expression has no value, and an alert does not fire."""
        return self._of(promql.parse(text))

    def _of(self, node: Any) -> Any:
        match node:
            case promql.NumberLiteral():
                return float(node.val)
            case promql.ParenExpr():
                return self._of(node.expr)
            case promql.VectorSelector():
                return _selected(self.now, node)
            case promql.AggregateExpr():
                return _aggregated(node, self._of(node.expr))
            case promql.Call():
                return self._called(node)
            case promql.BinaryExpr():
                return _combined(str(node.op), self._of(node.lhs), self._of(node.rhs))
        raise NotImplementedError(type(node).__name__)

    def _called(self, node: Any) -> Any:
        name = node.func.name
        if name in ("increase", "rate"):
            return self._increase(node.args[0].vector_selector)
        given = [self._of(argument) for argument in node.args]
        if name == "time":
            return self.time
        if name == "vector":
            return {frozenset(): given[0]}
        if name == "absent":
            return {} if given[0] else {frozenset(): 1.0}
        if name == "clamp_min":
            return {labels: max(value, given[1]) for labels, value in given[0].items()}
        if name == "histogram_quantile":
            return _quantiles(given[0], given[1])
        raise NotImplementedError(name)

    def _increase(self, selector: Any) -> Vector:
        """A rate too: only ratios of rates are asked for, and all windows are the same one."""
        later, earlier = (self.start, self.origin) if selector.offset is not None else (self.now, self.start)
        before = _selected(earlier, selector)
        return {labels: value - before.get(labels, 0.0) for labels, value in _selected(later, selector).items()}


def _selected(moment: Sampled, selector: Any) -> Vector:
    return {
        labels: value
        for labels, value in moment.get(selector.name, {}).items()
        if all(_matches(dict(labels).get(one.name, ""), one) for one in selector.matchers.matchers)
    }


def _matches(word: str, matcher: Any) -> bool:
    kind = str(matcher.op).rsplit(".", 1)[-1]
    equal = re.fullmatch(matcher.value, word) is not None if kind in ("Re", "NotRe") else word == matcher.value
    return equal is (kind in ("Re", "Equal"))


def _aggregated(node: Any, vector: Vector) -> Vector:
    kept = set(node.modifier.labels) if node.modifier is not None else set()
    groups: dict[Labels, list[float]] = defaultdict(list)
    for labels, value in vector.items():
        groups[frozenset(one for one in labels if one[0] in kept)].append(value)
    return {labels: _AGGREGATES[str(node.op)](values) for labels, values in groups.items()}


def _combined(sign: str, left: Any, right: Any) -> Any:
    if sign == "or":
        return {**right, **left} if left else right
    if sign == "and":
        return {labels: value for labels, value in left.items() if labels in right}
    if not isinstance(left, dict) and not isinstance(right, dict):
        return _ARITHMETIC[sign](left, right)
    labels = (set(left) if isinstance(left, dict) else set(right)) & (
        set(right) if isinstance(right, dict) else set(left)
    )
    pairs = {
        one: (left[one] if isinstance(left, dict) else left, right[one] if isinstance(right, dict) else right)
        for one in labels
    }
    if sign in _COMPARISONS:
        return {one: a if isinstance(left, dict) else b for one, (a, b) in pairs.items() if _COMPARISONS[sign](a, b)}
    return {one: _ARITHMETIC[sign](a, b) for one, (a, b) in pairs.items()}


def _quantiles(share: float, vector: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, value in vector.items():
        bound = float(dict(labels)["le"])
        groups[frozenset(one for one in labels if one[0] != "le")].append((bound, value))
    found = {labels: _quantile(share, sorted(buckets)) for labels, buckets in groups.items()}
    return {labels: value for labels, value in found.items() if not math.isnan(value)}


def _quantile(share: float, buckets: list[tuple[float, float]]) -> float:
    """Linear within a bucket; the last finite bound where it lies beyond."""
    rank = share * buckets[-1][1]
    if not rank:
        return math.nan
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            return low if math.isinf(bound) else low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return math.nan
