"""`sweeprun retry`, `stop`, `suspend` and `resume`: what people ask of a run, through its spec."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Annotated

import typer

from sweeprun_operator.api.spec import RequestAction
from sweeprun_operator.api.status import Condition, ConditionType, State
from sweeprun_operator.cluster.gateway import Raw

from .cluster.connection import Connection, ask
from .cluster.kubeconfig import Place
from .cluster.options import Context, Kubeconfig, Namespace, RunName
from .cluster.runs import Run
from .exits import CommandError, Exit
from .plain import neutral

LOOK_SECONDS = 0.5
MAX_STEP = 999_999_999_999

Wait = Annotated[bool, typer.Option("--wait", help="Until the operator has handled it.", show_default=False)]
Timeout = Annotated[float, typer.Option("--timeout", min=1, help="Seconds that --wait waits.")]
Handled = Callable[[Run], str | None]
"""What became of it, in words; None while it is not handled. Raises CommandError where it was refused."""


def retry(
    name: RunName,
    step: Annotated[
        int | None,
        typer.Option(
            "--from",
            metavar="STEP",
            min=0,
            max=MAX_STEP,
            help="From the newest checkpoint at or below it.",
            show_default=False,
        ),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = 60,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Go on with a run that has failed or waits."""
    _request(Place(namespace, context, kubeconfig), name, RequestAction.RETRY, step, timeout if wait else None)


def stop(
    name: RunName,
    wait: Wait = False,
    timeout: Timeout = 60,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """End a run for good; its checkpoints are kept, and `retry` goes on from them."""
    _request(Place(namespace, context, kubeconfig), name, RequestAction.STOP, None, timeout if wait else None)


def suspend(
    name: RunName,
    wait: Wait = False,
    timeout: Timeout = 60,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Stop what runs, with full grace, and keep the run's place."""

    def held(run: Run) -> str | None:
        if run.status.current is not None and run.status.current.state is State.FINISHED:
            return "the run has ended"
        found = _suspension(run)
        return found.message if found is not None else None

    _ask(Place(namespace, context, kubeconfig), name, {"suspend": True}, held, timeout if wait else None)


def resume(
    name: RunName,
    wait: Wait = False,
    timeout: Timeout = 60,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Go on with a suspended run."""

    def goes_on(run: Run) -> str | None:
        current = run.status.current
        held = _suspension(run) is not None or (current is not None and current.state is State.HELD)
        seen = run.status.observed_generation >= run.generation
        return f"it is {run.row.phase}" if seen and not held else None

    _ask(Place(namespace, context, kubeconfig), name, {"suspend": False}, goes_on, timeout if wait else None)


def _suspension(run: Run) -> Condition | None:
    """The condition that says that spec.suspend holds the run, where it is true."""
    found = run.status.condition(ConditionType.SUSPENDED)
    by_spec = found is not None and found.reason == "SuspendedBySpec"
    return found if by_spec and run.status.is_true(ConditionType.SUSPENDED) else None


def _request(place: Place, name: str, action: RequestAction, step: int | None, timeout: float | None) -> None:
    number = f"cli-{uuid.uuid4().hex[:16]}"
    # merged into what stands there: an older request's step must go
    body = {"id": number, "action": str(action), "fromStep": step}

    def handled(run: Run) -> str | None:
        last = run.status.last_request
        if last is None or last.id != number:
            return None
        if is_refusal(last.message, action):
            raise CommandError(Exit.REFUSED, f"the operator says: {last.message}")
        return last.message

    _ask(place, name, {"request": body}, handled, timeout)


def is_refusal(message: str, action: RequestAction) -> bool:
    """status.lastRequest has the operator's answer as a sentence."""
    return message.startswith(f"{action} refused")


def _ask(place: Place, name: str, spec: Raw, handled: Handled, timeout: float | None) -> None:
    """Merge `spec` into the run's and tell what became of it."""

    async def work(connection: Connection) -> str:
        await connection.change(name, {"spec": spec})
        return await _outcome(connection, name, handled, timeout)

    typer.echo(neutral(f"{name}: {ask(place, work)}"))


async def _outcome(connection: Connection, name: str, handled: Handled, seconds: float | None) -> str:
    """Raises CommandError: TIMED_OUT, REFUSED, or NOT_FOUND where the run is deleted meanwhile."""
    if seconds is None:
        return "asked; `sweeprun why` tells what becomes of it, --wait waits for it"
    deadline = time.monotonic() + seconds
    while True:
        raw: Raw = await connection.run_named(name)
        said = handled(Run.of(raw))
        if said is not None:
            return said
        if time.monotonic() >= deadline:
            raise CommandError(
                Exit.TIMED_OUT, f"{name}: the operator has not handled it within {seconds:g} s; the request stands"
            )
        await asyncio.sleep(LOOK_SECONDS)
