"""`sweeprun tracking sync`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeprun_cli.cluster.connection import complain, told, warn
from sweeprun_cli.exits import CommandError, Exit
from sweeprun_cli.tables import console, table
from sweeprun_trainer.offline.sending import NotSentError, Sent, find, send
from sweeprun_trainer.start import VOLUME_ERRORS

app = typer.Typer(help="What W&B could not be told when it happened.", no_args_is_help=True)

EXIT_CODES = (
    "Exit codes: 0 sent, or nothing to send; 1 not all could be sent; 2 wrong use. `sweeprun explain` tells more."
)


@app.command(epilog=EXIT_CODES)
def sync(
    run_dir: Annotated[
        Path, typer.Argument(help="The run's directory on the mounted volume.", exists=True, file_okay=False)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask W&B what it has, and send nothing.")] = False,
) -> None:
    """Send what was logged while W&B was away or off, each step once.

    It reads `wandb/e<epoch>` of the run directory in the order of the epochs, asks W&B where its history of the run
    ends, and logs what comes after. Called again it sends what is still missing. It needs W&B's client (pip install
    wandb), WANDB_API_KEY, and WANDB_BASE_URL for a server of your own. While an attempt may be speaking to W&B it
    refuses, since two writers would mix their rows; rows of processes that were online are never sent.
    """
    with told():
        try:
            found = find(str(run_dir.resolve()))
        except (NotSentError, *VOLUME_ERRORS) as error:
            raise CommandError(Exit.USAGE, str(error)) from None
    for problem in found.problems:
        warn(problem)
    results: list[Sent] = []
    failed = False
    for plan in found.plans:
        try:
            results.append(send(str(run_dir.resolve()), plan, dry_run=dry_run))
        except NotSentError as error:
            failed = True
            complain(str(error))
    if results:
        columns = ("run", "to send" if dry_run else "sent", "in W&B already", "ended with", "from")
        console().print(table("", columns, [_row(result) for result in results]))
    elif not failed:
        console().print(f"nothing to send: no offline runs in {run_dir / 'wandb'}", markup=False, highlight=False)
    if failed:
        raise typer.Exit(Exit.FAILED)


def _row(result: Sent) -> tuple[str, ...]:
    code = "-" if result.exit_code is None else str(result.exit_code)
    return result.name, str(result.rows), str(result.known), code, ", ".join(result.parts)
