"""What wandb's own client does to a run that is interrupted, and that the journal shows it.

The second half are the mistakes that SweepRun exists to prevent: were the journal blind to them, no test that reads
it could fail.
"""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack
from pathlib import Path

from support.wandb_server import Journal, Run, RunningServer, serve
from support.wandb_server.client import Client

from .conftest import ENTITY, PROJECT, RUN, StartClient

ALLOW = {"WANDB_RESUME": "allow"}
SWEEP = {**ALLOW, "WANDB_SWEEP_ID": "sweep-1", "WANDB_RUN_GROUP": "group-1"}


def recorded(server: RunningServer) -> Run:
    return server.run(ENTITY, PROJECT, RUN)


def wait_for_rows(server: RunningServer, *, value: str, count: int) -> None:
    def arrived(journal: Journal) -> bool:
        run = journal.find(ENTITY, PROJECT, RUN)
        return run is not None and run.values("value").count(value) == count

    server.wait(arrived)


def hang_up_on_one(port: int) -> None:
    """Stand in for a server on its way down: accept a connection and reset it."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(30)
        connection, _ = listener.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


def train(client: Client, first: int, last: int) -> None:
    client.log(first, last)
    client.finish()


def test_a_run_is_made_and_then_continued(server: RunningServer, start_client: StartClient) -> None:
    first = start_client(ALLOW)
    train(first, 0, 4)
    second = start_client(ALLOW)
    train(second, second.begun["starting_step"], 9)

    run = recorded(server)
    assert (first.begun["resumed"], second.begun["resumed"]) == (False, True)
    assert second.begun["starting_step"] == 5
    assert run.steps == list(range(10))
    assert run.ids == (RUN,)
    assert run.inserted_count == 1
    assert run.resumed_at == [5]
    assert run.exit_codes == [0, 0]
    assert run.summary["trainer/global_step"] == 9
    assert [writer.key for writer in run.writers] == ["attempt-0", "attempt-1"]
    assert len(run.process_ids) == 2
    assert run.overlapping_writers() == []


def test_a_killed_writer_is_succeeded(server: RunningServer, start_client: StartClient) -> None:
    killed = start_client(ALLOW)
    killed.log(0, 4, value="killed")
    wait_for_rows(server, value="killed", count=5)
    killed.kill()
    # Its checkpoint is older than its history, so that steps come again: the client drops those.
    successor = start_client(ALLOW)
    successor.log(3, 9, value="successor")
    successor.finish()

    run = recorded(server)
    assert successor.begun["starting_step"] == 5
    assert run.steps == list(range(10))
    assert run.values("value") == ["killed"] * 5 + ["successor"] * 5
    assert run.exit_codes == [0]
    assert run.overlapping_writers() == []
    assert run.conflicts == []


def test_no_row_is_lost_while_the_server_is_away(tmp_path: Path) -> None:
    journal, home = str(tmp_path / "journal"), str(tmp_path)
    names = {"WANDB_ENTITY": ENTITY, "WANDB_PROJECT": PROJECT, "WANDB_RUN_ID": RUN}
    with ExitStack() as ending:
        with serve(journal) as server:
            client = ending.enter_context(Client({**server.client_environ(home), **names}))
            client.log(0, 2, value="before")
            wait_for_rows(server, value="before", count=3)
        client.log(3, 5, value="after")
        hang_up_on_one(server.port)
        with serve(journal, port=server.port) as again:
            client.finish()
            run = recorded(again)
    assert run.steps == list(range(6))
    assert run.exit_codes == [0]
    assert run.overlapping_writers() == []


def test_a_writer_with_another_exit_code_is_seen(server: RunningServer, start_client: StartClient) -> None:
    start_client(ALLOW).finish(exit_code=143)
    assert recorded(server).exit_codes == [143]


def test_must_writes_nothing_when_there_is_no_run(server: RunningServer, start_client: StartClient) -> None:
    assert "error" in start_client({"WANDB_RESUME": "must"}).begun
    assert server.journal().operations() == ["RunResumeStatus"]
    assert server.journal().ids(ENTITY, PROJECT) == []


def test_beginning_anew_under_the_same_id_shows_as_duplicates(server: RunningServer, start_client: StartClient) -> None:
    train(start_client({}), 0, 2)
    train(start_client({}), 0, 4)

    run = recorded(server)
    assert run.steps == [0, 1, 2, 0, 1, 2, 3, 4]
    assert run.duplicate_steps() == [0, 1, 2]
    assert run.resumed_at == []


def test_steps_that_were_never_logged_show_as_missing(server: RunningServer, start_client: StartClient) -> None:
    train(start_client(ALLOW), 0, 2)
    train(start_client(ALLOW), 5, 6)
    assert recorded(server).missing_steps(0, 6) == [3, 4]


def test_two_writers_at_once_are_seen(server: RunningServer, start_client: StartClient) -> None:
    one, other = start_client(ALLOW), start_client(ALLOW)
    assert (one.begun["id"], other.begun["id"]) == (RUN, RUN)
    one.log(0, 2, value="one")
    wait_for_rows(server, value="one", count=3)
    other.log(0, 1, value="other")
    wait_for_rows(server, value="other", count=2)
    one.finish()
    other.finish()

    run = recorded(server)
    assert [{a.key, b.key} for a, b in run.overlapping_writers()] == [{"attempt-0", "attempt-1"}]
    assert [conflict["position"] for conflict in run.conflicts] == [0, 1]
    assert run.values("value") == ["other", "other", "one"]


def test_an_id_given_in_the_code_is_lost_within_a_sweep(server: RunningServer, start_client: StartClient) -> None:
    client = start_client({**SWEEP, "WANDB_RUN_ID": None}, id=RUN)
    train(client, 0, 1)
    assert client.begun["id"] != RUN
    assert server.journal().ids(ENTITY, PROJECT, sweep="sweep-1") == [client.begun["id"]]
