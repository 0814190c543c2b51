"""`sweeprun local run` and `sweeprun local demo`."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from sweeprun_cli.tables import console as stdout
from sweeprun_operator.api.status import ConditionType

from .closing import closing
from .demo import demonstrate, result
from .faults import Damage, Fault, Means
from .manifest import ManifestError, load
from .picture import Picture
from .run import End, LocalRun, Options, RootInUseError
from .view import Viewer

T = TypeVar("T")

COMPLETE, FAILED, USAGE, TIMED_OUT, BROKEN, INTERRUPTED = 0, 1, 2, 3, 70, 130
_CODES = {
    End.COMPLETE: COMPLETE,
    End.FAILED: FAILED,
    End.REFUSED: USAGE,
    End.TIMED_OUT: TIMED_OUT,
    End.BROKEN: BROKEN,
}

EXIT_CODES = """

Exit codes: 0 the run is complete; 1 it failed; 2 the file or an option is wrong; 3 --timeout;
70 a bug; 130 Ctrl-C.
"""

app = typer.Typer(
    help="Run a SweepRun on this machine: processes for pods, a directory for the volume.", no_args_is_help=True
)


@dataclass(frozen=True, slots=True)
class Place:
    root: Path
    logs: Path


def _trigger(means: Means, text: str | None) -> list[Fault]:
    if text is None:
        return []
    try:
        return [Fault.parse(means, text)]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


ManifestFile = Annotated[Path, typer.Argument(help="A SweepRun manifest.", show_default=False)]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Directory that stands for the volume; an interrupted run in it goes on. Absent: a temporary one."
    ),
]
EvictAfter = Annotated[
    str | None, typer.Option(metavar="STEP|SECONDSs", help="Evict a pod, with grace, at this step or time.")
]
KillAfter = Annotated[
    str | None, typer.Option(metavar="STEP|SECONDSs", help="Kill a pod's processes (-9) at this step or time.")
]
Corrupt = Annotated[Damage | None, typer.Option(help="After the interruption, flip one bit in the newest checkpoint.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the manifest, as spec.limits.maxFailures=1."),
]
Paths = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="INSIDE=HERE", help="A path of the image and what it is on this machine."),
]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds for everything.")]
Keep = Annotated[bool, typer.Option("--keep", help="Keep the temporary directory.")]


@app.command(epilog=EXIT_CODES)
def run(
    file: ManifestFile,
    root: Root = None,
    evict_after: EvictAfter = None,
    kill_after: KillAfter = None,
    corrupt: Corrupt = None,
    changes: Changes = None,
    paths: Paths = None,
    timeout: Timeout = 3600,
    keep: Keep = False,
) -> None:
    """Execute a SweepRun, with the same decisions, prepare and entrypoint as on a cluster."""
    console = stdout()
    faults = (*_trigger(Means.EVICT, evict_after), *_trigger(Means.KILL, kill_after))
    if corrupt is not None and not faults:
        raise typer.BadParameter(
            "--corrupt damages what an interruption leaves: give --evict-after or --kill-after too"
        )
    with explained(console), place(root, keep=keep, console=console) as where:
        manifest = load(file, changes=changes or ())
        options = Options(
            root=where.root,
            logs=where.logs,
            faults=faults,
            damage=corrupt,
            timeout_seconds=timeout,
            paths=mappings(paths),
        )
        viewer = Viewer(console)
        one = LocalRun(manifest, options, told=lambda note: viewer.told(manifest.run.metadata.name, note))
        viewer.add(one.picture)
        with viewer.showing():
            end = until_stopped(one.run())
        console.print(closing(one.picture))
        console.print(verdict(end, one.picture))
    raise typer.Exit(_CODES[end])


@app.command(epilog=EXIT_CODES)
def demo(
    file: ManifestFile,
    changes: Changes = None,
    paths: Paths = None,
    timeout: Timeout = 300,
    keep: Keep = False,
) -> None:
    """Run it twice at once, undisturbed and evicted in the middle, and compare the final states bit for bit.

    Exit code 1 also where they differ, or where nothing was evicted and resumed."""
    console = stdout()
    with explained(console), place(None, keep=keep, console=console) as where:
        manifest = load(file, changes=changes or ())
        if manifest.run.spec.tracking is not None:
            manifest = load(file, changes=(*(changes or ()), "spec.tracking.wandb.mode=Disabled"))
        viewer = Viewer(console)
        options = Options(root=where.root, logs=where.logs, timeout_seconds=timeout, paths=mappings(paths))
        with viewer.showing():
            shown = until_stopped(demonstrate(manifest, options, viewer))
        console.print(closing(shown.evicted.picture))
        for one, end in zip((shown.undisturbed, shown.evicted), shown.ends, strict=True):
            if end is not End.COMPLETE:
                console.print(verdict(end, one.picture))
        console.print(result(shown))
    code = max(_CODES[end] for end in shown.ends)
    raise typer.Exit(code or (FAILED if shown.problems else COMPLETE))


def verdict(end: End, picture: Picture) -> Text:
    name, status = picture.name, picture.status
    if end is End.COMPLETE:
        step = f" at step {status.result.step}" if status.result and status.result.step is not None else ""
        return Text(f"{name} is complete{step}: run {status.run_id}.", style="green")
    if end is End.TIMED_OUT:
        stuck = status.condition(ConditionType.STUCK)
        why = f": {stuck.reason}: {stuck.message}" if stuck is not None and status.is_true(ConditionType.STUCK) else ""
        return Text(f"{name} was not finished in time{why}", style="red")
    if end is End.BROKEN:
        return Text(f"{name} ended by a bug in SweepRun, which the log above shows: please report it", style="red")
    kind = ConditionType.FAILED if end is End.FAILED else ConditionType.ACCEPTED
    found = status.condition(kind)
    why = f": {found.reason}: {found.message}" if found is not None else ""
    return Text(f"{name} {'failed' if end is End.FAILED else 'was not accepted'}{why}", style="red")


def until_stopped(work: Coroutine[Any, Any, T]) -> T:
    """Run it; SIGTERM ends it as Ctrl-C does, so that no process stays behind."""

    async def guarded() -> T:
        task = asyncio.current_task()
        assert task is not None, "this is a task"
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@contextmanager
def place(root: Path | None, *, keep: bool, console: Console) -> Iterator[Place]:
    """The given directory, or a temporary one that goes at the end; logs lie beside the runs."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    if root is not None:
        yield Place(root, root / ".sweeprun-local" / stamp)
        return
    made = Path(tempfile.mkdtemp(prefix="sweeprun-"))
    try:
        yield Place(made / "volume", made / "logs")
    finally:
        if keep:
            console.print(f"The volume is {made}/volume, logs lie in {made}/logs", soft_wrap=True, highlight=False)
        else:
            shutil.rmtree(made)


@contextmanager
def explained(console: Console) -> Iterator[None]:
    """Errors that people can do something about, as one message and an exit code."""
    logging.basicConfig(level=logging.WARNING, handlers=[RichHandler(console=console, show_path=False)], force=True)
    try:
        yield
    except (ManifestError, RootInUseError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(USAGE) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted: every process of the run is gone.", style="yellow")
        raise typer.Exit(INTERRUPTED) from None


def mappings(texts: list[str] | None) -> tuple[tuple[str, str], ...]:
    return tuple(_mapping(text) for text in texts or ())


def _mapping(text: str) -> tuple[str, str]:
    inside, separator, here = text.partition("=")
    if not separator or not inside.startswith("/") or not here:
        raise typer.BadParameter(f"--map {text!r} must be /path/in/the/image=path/here")
    return inside.rstrip("/"), str(Path(here).resolve())
