"""How every command prints: a console, tables and sizes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

LOG_COLUMNS = 160


def console() -> Console:
    """Tables in a log have room: 80 columns are what rich takes where it knows nothing."""
    found = Console()
    return found if found.is_terminal else Console(width=LOG_COLUMNS)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    made = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=None, padding=(0, 2, 0, 0)
    )
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    return made


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """As kubectl prints lists: every row is one line, for people and for grep."""
    made = table("", columns, rows)
    made.title = None
    for column in made.columns:
        column.no_wrap = True
        column.overflow = "ellipsis"
    return made


def size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
