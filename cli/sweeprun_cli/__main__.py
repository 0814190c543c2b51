"""The `sweeprun` command, which is also `kubectl sweeprun`."""

from __future__ import annotations

import typer

from sweeprun_cli.inspect.command import EXIT_CODES, inspect
from sweeprun_cli.local.commands import app as local

app = typer.Typer(
    name="sweeprun",
    help="Interrupted hyper-parameter sweep runs continue instead of starting over.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(local, name="local")
app.command(epilog=EXIT_CODES)(inspect)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
