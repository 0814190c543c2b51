"""`sweeprun why`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from sweeprun_cli.cluster.connection import ask, told
from sweeprun_cli.cluster.kubeconfig import Place
from sweeprun_cli.cluster.machine import machine
from sweeprun_cli.cluster.options import Context, Kubeconfig, Namespace, PlainFormat, RunName
from sweeprun_cli.cluster.runs import Run
from sweeprun_cli.plain import moment
from sweeprun_cli.tables import console

from .story import Ending, Story


def why(
    name: RunName,
    output: Annotated[PlainFormat, typer.Option("--output", "-o")] = PlainFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say in plain words why the last attempt ended, what happens next, and what can be done."""
    raw = ask(Place(namespace, context, kubeconfig), lambda connection: connection.run_named(name))
    with told():
        story = Story.of(Run.of(raw), datetime.now(UTC))
    if output is not PlainFormat.TABLE:
        typer.echo(machine(_wire(story), output))
        return
    console().print(render(story))


def render(story: Story) -> RenderableType:
    parts: list[RenderableType] = [Text(story.name, style="bold").append(f"  {story.phase}", style="not bold")]
    if story.ending is None:
        parts.append(Padding(Text("No attempt of it has ended."), (0, 0, 0, 2)))
    else:
        parts += [Padding(text, (0, 0, 0, 2)) for text in _ended(story.ending)]
    for title, lines in (("What happens next", story.next), ("What to do", story.todo), ("Budgets", story.budgets)):
        if lines:
            parts.append(Text(title, style="bold"))
            parts += [Padding(Text(line), (0, 0, 0, 2)) for line in lines]
    return Group(*parts)


def _ended(ending: Ending) -> Iterator[Text]:
    node = f" on node {ending.node}" if ending.node else ""
    text = Text(f"Attempt {ending.attempt} ended at {moment(ending.time)}{node}: ")
    yield text.append(ending.cause, style="bold")
    yield Text(ending.meaning)
    if ending.evidence:
        yield Text(f"Evidence: {ending.evidence}")
    for pod in ending.pods:
        yield Text(f"  {pod}")
    if ending.kind:
        yield Text(f"Counts as {ending.kind}")
    reached = f"step {ending.to_step}" if ending.to_step is not None else "a step that nobody saw"
    yield Text(f"It began at step {ending.from_step or 0} and reached {reached}.")


def _wire(story: Story) -> dict[str, object]:
    found = asdict(story)
    if story.ending is not None:
        time = story.ending.time
        found["ending"] = {**found["ending"], "time": time.isoformat() if time is not None else None}
    return found
