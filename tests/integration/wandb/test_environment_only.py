"""An unmodified script, whose `wandb.init()` knows nothing, with the variables that the operator makes."""

from __future__ import annotations

import pytest

from support.decided import BUILD, RUN_ID, decided, environment, trainer_of
from support.wandb_server import RunningServer

from .conftest import ENTITY, PROJECT, StartClient

SWEEP = {"sweepId": "sweep-1", "group": "group-1"}


def variables(attempt: int, more: dict[str, str], **status: str) -> dict[str, str]:
    tracking = {"type": "WandB", "wandb": {"entity": ENTITY, "project": PROJECT, **more}}
    run = decided(attempt=attempt, epoch=attempt + 1, resume=2 if attempt else None, tracking=tracking)
    run = run.model_copy(update={"status": run.status.model_copy(update=status)})
    return {
        name: value
        for name, value in environment(trainer_of(BUILD.workload(run))).items()
        if name.startswith("WANDB_") and isinstance(value, str)
    }


@pytest.mark.parametrize("more", [{}, SWEEP], ids=["alone", "in a sweep"])
def test_every_attempt_goes_on_with_the_same_run(
    server: RunningServer, start_client: StartClient, more: dict[str, str]
) -> None:
    for attempt, (first, last) in enumerate(((0, 2), (3, 5))):
        client = start_client({"WANDB_RUN_ID": None, **variables(attempt, more)})
        assert client.begun["id"] == RUN_ID
        client.log(first, last)
        client.finish(143 if attempt == 0 else 0)
    run = server.run(ENTITY, PROJECT, RUN_ID)
    assert run.steps == list(range(6))
    assert (run.ids, run.inserted_count, run.exit_codes) == ((RUN_ID,), 1, [143, 0])
    assert (run.sweep, run.group) == (more.get("sweepId"), more.get("group"))
    assert run.raw["fields"].get("notes") is None


def test_a_linked_run_shows_in_wandb_where_its_beginning_is(server: RunningServer, start_client: StartClient) -> None:
    client = start_client(variables(1, {}, wandb_run_id="first-e2", previous_wandb_run_id="first"))
    client.log(0, 2)
    client.finish()
    assert "the beginning of this run is in first" in server.run(ENTITY, PROJECT, "first-e2").raw["fields"]["notes"]
