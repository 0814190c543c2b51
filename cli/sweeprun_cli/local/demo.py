"""The same run twice at once, undisturbed and evicted in the middle, and what became of both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from sweeprun_cli.tables import size, table
from sweeprun_operator.api.status import Cause
from sweeprun_protocol.layout import RunLayout

from .compare import CompareError, Part, compare, final_checkpoint
from .faults import Fault, Means
from .manifest import Manifest
from .picture import Picture
from .run import End, LocalRun, Options, total_steps
from .view import Viewer

WITHOUT_TOTAL_SECONDS = 5.0
"""When the evicted run is evicted where nothing tells how many steps there will be: after all pods run."""
UNDISTURBED, EVICTED = "undisturbed", "evicted"


@dataclass(frozen=True, slots=True)
class Demo:
    undisturbed: LocalRun
    evicted: LocalRun
    ends: tuple[End, End]
    parts: tuple[Part, ...]
    """Of the final states; none where a run has no final state."""
    problems: tuple[str, ...]
    """Why the demonstration shows nothing, or the wrong thing; empty: both ended in the same state."""


async def demonstrate(manifest: Manifest, options: Options, viewer: Viewer) -> Demo:
    """`options.root` and `options.logs` hold a directory for each run."""
    steps = total_steps(manifest.raw)
    fault = Fault(Means.EVICT, steps // 2, None) if steps else Fault(Means.EVICT, None, WITHOUT_TOTAL_SECONDS)
    undisturbed = _run(manifest, options, viewer, UNDISTURBED, ())
    evicted = _run(manifest, options, viewer, EVICTED, (fault,))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run()) for one in (undisturbed, evicted)]
    first, second = (task.result() for task in tasks)
    problems = [*_unfinished(undisturbed, first), *_unfinished(evicted, second), *_not_resumed(evicted.picture)]
    parts: list[Part] = []
    if first is second is End.COMPLETE:
        try:
            parts = await compare(_final(undisturbed, manifest), _final(evicted, manifest))
        except CompareError as error:
            problems.append(str(error))
    problems += [f"{part.name} differs in {part.differences[0]}" for part in parts if part.differences]
    problems += _different_results(undisturbed.picture, evicted.picture)
    return Demo(undisturbed, evicted, (first, second), tuple(parts), tuple(problems))


def _run(manifest: Manifest, options: Options, viewer: Viewer, name: str, faults: tuple[Fault, ...]) -> LocalRun:
    own = replace(options, root=options.root / name, logs=options.logs / name, faults=faults)
    one = LocalRun(manifest, own, told=lambda note: viewer.told(name, note))
    one.picture.name = name
    viewer.add(one.picture)
    return one


def _final(one: LocalRun, manifest: Manifest) -> Path:
    """Raises CompareError."""
    current, directory = one.picture.status.current, one.picture.run_directory
    assert current is not None, "a complete run has had an attempt"
    assert directory is not None, "a complete run has a directory"
    where = RunLayout(str(directory)).checkpoints(manifest.run.spec.checkpoint.directory, current.epoch)
    return final_checkpoint(Path(where))


def _unfinished(one: LocalRun, end: End) -> Iterator[str]:
    if end is not End.COMPLETE:
        yield f"the {one.picture.name} run is {end.value}"


def _not_resumed(picture: Picture) -> Iterator[str]:
    if not any(one.cause is Cause.EVICTION_API for one in picture.status.history):
        yield "no attempt was evicted"
    if not picture.status.counts.resumes:
        yield "nothing was resumed"


def _different_results(first: Picture, second: Picture) -> Iterator[str]:
    """What training itself reported at its end."""
    if first.status.result is None or second.status.result is None:
        return
    if first.status.result.step != second.status.result.step:
        yield f"one ended at step {first.status.result.step}, the other at step {second.status.result.step}"
    one, other = first.status.result.metrics, second.status.result.metrics
    for name in sorted({*one, *other}):
        if one.get(name) != other.get(name):
            yield f"the metric {name} is {one.get(name)} in one and {other.get(name)} in the other"


def result(demo: Demo) -> RenderableType:
    rows = [
        (
            part.name,
            str(part.values),
            size(part.bytes),
            f"{len(part.differences)} differ" if part.differences else "same",
        )
        for part in demo.parts
    ]
    lines: list[RenderableType] = []
    if rows:
        lines += [
            table("Final state of both runs, bit for bit", ("part", "values", "tensors", "compared"), rows),
            Text(),
        ]
    if demo.problems:
        lines.append(Text("This is not what should have happened:", style="red"))
        lines += [Text(f"  {problem}", style="red") for problem in demo.problems]
    else:
        values = sum(part.values for part in demo.parts)
        base = next(one.from_step for one in demo.evicted.picture.status.history if one.from_step is not None)
        lines.append(
            Text(
                f"The evicted run went on from step {base} and ended in exactly the state of the undisturbed one: "
                f"all {values} values of {', '.join(part.name for part in demo.parts)} are the same, bit for bit.",
                style="green",
            )
        )
    return Group(*lines)
