"""`sweeprun explain`."""

from __future__ import annotations

import difflib
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from sweeprun_cli.cluster.connection import told
from sweeprun_cli.exits import CommandError, Exit
from sweeprun_cli.plain import neutral
from sweeprun_cli.tables import console

from .words import FAMILIES, counts_as, entries, words

_LONGEST = 64


def _complete(incomplete: str) -> list[str]:
    return [word for word in words() if word.lower().startswith(incomplete.lower())]


def explain(
    word: Annotated[
        str | None,
        typer.Argument(
            metavar="[CAUSE|REASON|CODE]",
            help="As history, conditions, Events or a container's exit code say it; absent: lists all.",
            autocompletion=_complete,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say what a word of SweepRun means and what to do: causes, reasons, states, exit codes."""
    out = console()
    if word is None:
        out.print(Group(*(_listed(family.title, list(family.entries)) for family in FAMILIES)))
        return
    found = list(entries(word))
    if not found:
        near = difflib.get_close_matches(word[:_LONGEST], words(), n=3, cutoff=0.5)
        hint = f": did you mean {' or '.join(near)}?" if near else "; `sweeprun explain` lists all words"
        with told():
            raise CommandError(Exit.USAGE, f"SweepRun has no word {neutral(word[:_LONGEST])}{hint}")
    for title, known, entry in found:
        text = Text(f"{known}", style="bold").append(f"  {title}", style="dim not bold")
        kind = counts_as(known) if title == FAMILIES[0].title else None
        parts: list[RenderableType] = [Text(entry.meaning)]
        if kind is not None:
            parts.append(Text(f"Counts as: {kind}"))
        if entry.advice:
            parts.append(Text(f"What to do: {entry.advice}"))
        out.print(Group(text, *(Padding(part, (0, 0, 0, 2)) for part in parts)))


def _listed(title: str, known: list[str]) -> Text:
    return Text(f"{title}: ", style="bold").append(", ".join(known), style="not bold")
