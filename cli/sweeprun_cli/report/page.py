"""The page: what was asked for, pictures, and tables that say the same."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sweeprun_cli.cluster.runs import Run
from sweeprun_cli.explain.causes import CAUSES
from sweeprun_cli.history import recovery_seconds
from sweeprun_cli.plain import NOTHING, duration, moment, neutral, number, optional
from sweeprun_operator.api.status import Attempt, Kind

from .charts import COLOURS, PHASES, bars, curves, recovery, steps, timeline
from .markup import Child, Markup, element, joined, table
from .metrics import Line
from .style import STYLE

MAX_DETAILED = 100
"""Runs of a sweep that are told one by one; the tables have all."""
MAX_METRICS = 8
MAX_WORD = 24
MAX_CURVES = 4
"""Metrics that are drawn; the table has all."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The browser itself keeps the page from loading anything."""


def page_of_run(run: Run, now: datetime, lines: Sequence[Line] = ()) -> str:
    """`lines`: metrics over steps, which lie on the volume and in no status."""
    return _page(f"Run {run.name}", now, run_section(run, now, lines, level="h2", title="Attempts"))


def page_of_sweep(sweep: str, runs: Sequence[Run], now: datetime) -> str:
    """`runs` by name; at least one."""
    detailed = runs[:MAX_DETAILED]
    parts: list[Child] = [element("h2", "The sweep"), _facts(_of_sweep(runs))]
    lanes = [(run.name, bars(run, now)) for run in detailed]
    parts += [timeline("Attempts of each run", lanes), _legend(runs), _runs_table(runs), _results(runs)]
    if len(runs) > len(detailed):
        parts.append(element("p", f"{len(runs) - len(detailed)} more runs are in the tables only.", class_="quiet"))
    parts += [run_section(run, now, level="h2", title=f"Run {run.name}") for run in detailed]
    return _page(f"Sweep {neutral(sweep)}", now, *parts)


def _page(title: str, now: datetime, *parts: Child) -> str:
    head = joined(
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", f"{title} - SweepRun report"),
        element("style", Markup(STYLE)),
    )
    told = f"As its status was at {moment(now)}. What no status records is shown as unknown."
    top = element("header", element("h1", title), element("p", told, class_="quiet"))
    body = element("body", top, element("main", *parts))
    return f"<!DOCTYPE html>\n{element('html', element('head', head), body, lang='en')}\n"


# -- one run -----------------------------------------------------------------------------------------------------------


def run_section(run: Run, now: datetime, lines: Sequence[Line] = (), *, level: str, title: str) -> Markup:
    attempts = run.status.history
    found = bars(run, now)
    lanes = [(f"attempt {bar.attempt.attempt}", [bar]) for bar in found]
    count = run.status.counts.attempts
    older = f"The status keeps the newest {len(attempts)} of {count} attempts." if count > len(attempts) else None
    return element(
        "section",
        element(level, title),
        _facts(_of_run(run)),
        element("p", older, class_="quiet") if older else None,
        timeline(f"Attempts of {run.name}", lanes),
        _legend([run]) if found else None,
        _attempts_table(run),
        steps(f"Steps of {run.name}, across attempts", run, now)
        or element("p", "Steps over time: unknown, no step was seen.", class_="quiet"),
        *_metrics(run, lines),
        *_recovery(run),
        _refused_table(attempts),
        _results([run]),
    )


def _of_run(run: Run) -> list[tuple[str, str]]:
    counts, savings = run.status.counts, run.status.savings
    return [
        ("phase", run.row.phase),
        ("run ID", run.row.run_id or NOTHING),
        ("sweep", run.row.sweep or NOTHING),
        ("attempts", number(counts.attempts)),
        ("resumed", number(counts.resumes)),
        ("disruptions", number(counts.disruptions)),
        ("failures", number(counts.failures)),
        ("steps kept", number(savings.steps_kept)),
        ("steps repeated", number(savings.steps_repeated)),
        ("GPU time kept", duration(savings.gpu_seconds_kept)),
    ]


def _attempts_table(run: Run) -> Markup:
    columns = [
        "attempt",
        "began as",
        "began",
        "ended",
        "cause",
        "counts as",
        "node",
        "from step",
        "to step",
        "evidence",
    ]
    rows: list[list[Child]] = [
        [
            str(one.attempt),
            f"{one.outcome}" + (f" ({one.reason})" if one.reason is not None else ""),
            _unbroken(moment(one.start_time)),
            _unbroken(moment(one.end_time)) if one.end_time is not None else "not yet",
            element("span", str(one.cause), title=CAUSES[one.cause].meaning) if one.cause is not None else NOTHING,
            optional(one.kind),
            _unbroken(one.node or NOTHING),
            str(one.from_step or 0),
            "unknown" if one.to_step is None else str(one.to_step),
            one.evidence or NOTHING,
        ]
        for one in run.status.history
    ]
    if not rows:
        return element("p", "No attempt has been decided yet.", class_="quiet")
    return table(f"Attempts of {run.name}", columns, rows)


def _metrics(run: Run, lines: Sequence[Line]) -> list[Child]:
    """A loss comes first: it is what people look for."""
    if not lines:
        told = "Metrics over steps: unknown, no status records them. The library keeps them on the volume: --volume."
        return [element("p", told, class_="quiet")]
    names = sorted({line.metric for line in lines}, key=lambda name: ("loss" not in name.lower(), name))
    shown = names[:MAX_CURVES]
    pictures = [
        curves(f"{neutral(name)} of {run.name}, over steps", [line for line in lines if line.metric == name])
        for name in shown
    ]
    rows: list[list[Child]] = [
        [neutral(line.metric), f"attempt {line.attempt.attempt}", str(line.points[-1][0]), f"{line.points[-1][1]:.6g}"]
        for name in names
        for line in lines
        if line.metric == name
    ]
    return [*pictures, table("Metrics as the volume has them", ["metric", "attempt", "last step", "last value"], rows)]


def _unbroken(text: str) -> Markup:
    """Words that are not broken at their hyphens: dates, and names of nodes that are not too long for it."""
    words = (element("span", word, class_="word") if len(word) <= MAX_WORD else word for word in text.split())
    return joined(*(part for word in words for part in (word, " ")))


def _recovery(run: Run) -> list[Child]:
    picture = recovery(f"Recovery of {run.name}, phase by phase", run.status.history)
    keys = (_key(f"phase-{phase.replace('_', '-')}", phase.replace("_", " ")) for phase in PHASES)
    return [picture, element("ul", *keys, class_="legend") if picture else None, _recovery_table(run.status.history)]


def _recovery_table(attempts: Sequence[Attempt]) -> Markup | None:
    recovered = [one for one in attempts if one.attempt]
    if not recovered:
        return None
    names = [*PHASES[:3], "validation", *PHASES[3:]]
    rows: list[list[Child]] = [
        [
            f"attempt {one.attempt}",
            *(duration(getattr(one.seconds, name)) for name in names),
            duration(recovery_seconds(one.seconds)),
        ]
        for one in recovered
    ]
    columns = ["before", *(name.replace("_", " ") for name in names), "together"]
    return table("Recovery by phase (validation is a part of prepare)", columns, rows)


def _refused_table(attempts: Sequence[Attempt]) -> Markup | None:
    rows: list[list[Child]] = [
        [f"attempt {one.attempt}", item.path, str(item.reason), item.message, item.entry or NOTHING]
        for one in attempts
        for item in one.refused
    ]
    return table("Refused checkpoints", ["before", "checkpoint", "reason", "message", "entry"], rows) if rows else None


# -- a sweep -----------------------------------------------------------------------------------------------------------


def _of_sweep(runs: Sequence[Run]) -> list[tuple[str, str]]:
    counts = [run.status.counts for run in runs]
    savings = [run.status.savings for run in runs]
    return [
        ("runs", number(len(runs))),
        ("complete", number(sum(run.row.phase == "Completed" for run in runs))),
        ("failed", number(sum(run.row.phase == "Failed" for run in runs))),
        ("attempts", number(sum(one.attempts for one in counts))),
        ("resumed", number(sum(one.resumes for one in counts))),
        ("disruptions", number(sum(one.disruptions for one in counts))),
        ("steps kept", number(sum(one.steps_kept for one in savings))),
        ("steps repeated", number(sum(one.steps_repeated for one in savings))),
        ("GPU time kept", duration(sum(one.gpu_seconds_kept for one in savings))),
    ]


def _runs_table(runs: Sequence[Run]) -> Markup:
    columns = ["run", "phase", "attempts", "resumed", "disruptions", "failures", "step", "kept", "repeated", "GPU kept"]
    rows: list[list[Child]] = [
        [
            run.name,
            run.row.phase,
            number(run.status.counts.attempts),
            number(run.status.counts.resumes),
            number(run.status.counts.disruptions),
            number(run.status.counts.failures),
            optional(run.row.step),
            number(run.status.savings.steps_kept),
            number(run.status.savings.steps_repeated),
            duration(run.status.savings.gpu_seconds_kept),
        ]
        for run in runs
    ]
    return table("Runs and what resuming kept", columns, rows)


def _results(runs: Sequence[Run]) -> Markup | None:
    """Metrics as complete() was given them."""
    ended = [(run.name, run.status.result) for run in runs if run.status.result is not None]
    names = sorted({name for _, result in ended for name in result.metrics})[:MAX_METRICS]
    if not names:
        return None
    rows: list[list[Child]] = [
        [name, optional(result.step), *(result.metrics.get(metric, NOTHING) for metric in names)]
        for name, result in ended
    ]
    return table("Results", ["run", "step", *names], rows)


def _facts(facts: list[tuple[str, str]]) -> Markup:
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in facts))


def _legend(runs: Sequence[Run]) -> Markup:
    shown = {one.kind for run in runs for one in run.status.history}
    words: dict[Kind | None, str] = {kind: str(kind) for kind in Kind} | {None: "not ended"}
    return element("ul", *(_key(COLOURS[kind], word) for kind, word in words.items() if kind in shown), class_="legend")


def _key(colour: str, word: str) -> Markup:
    box = element("rect", width=12, height=12, rx=3, class_=f"bar {colour}")
    return element("li", element("svg", box, viewBox="0 0 12 12", aria_hidden="true"), f" {word}")
