"""The `sweeprun` command, which is also `kubectl sweeprun`."""

from __future__ import annotations

import typer

from sweeprun_cli.adopt import adopt
from sweeprun_cli.advise.command import advise
from sweeprun_cli.exits import EPILOG
from sweeprun_cli.explain.command import explain
from sweeprun_cli.get import get
from sweeprun_cli.history import history
from sweeprun_cli.inspect.command import EXIT_CODES, inspect
from sweeprun_cli.local.commands import app as local
from sweeprun_cli.report.command import report
from sweeprun_cli.requests import resume, retry, stop, suspend
from sweeprun_cli.tracking import app as tracking
from sweeprun_cli.watch import watch
from sweeprun_cli.why.command import why

app = typer.Typer(
    name="sweeprun",
    help="Interrupted hyper-parameter sweep runs continue instead of starting over.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.add_typer(local, name="local")
app.add_typer(tracking, name="tracking")
for command in (get, history, why, watch, retry, stop, suspend, resume, adopt, advise, report):
    app.command(epilog=EPILOG)(command)
app.command()(explain)
app.command(epilog=EXIT_CODES)(inspect)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
