"""The W&B test server, asked without wandb: what it keeps of each request, and what it makes of bad ones."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.wandb_server import Journal, Run, RunningServer, serve
from support.wandb_server.server import MAX_BODY_BYTES

STREAM = "/files/team/project/run-1/file_stream"
HISTORY = "wandb-history.jsonl"


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with serve() as running:
        yield running


@pytest.fixture
def connection(server: RunningServer) -> Iterator[http.client.HTTPConnection]:
    opened = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    yield opened
    opened.close()


def ask(
    connection: http.client.HTTPConnection, path: str, body: Any, *, method: str = "POST", **headers: str
) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def graphql(connection: http.client.HTTPConnection, operation: str, **variables: Any) -> Any:
    status, answer = ask(connection, "/graphql", {"operationName": operation, "variables": variables})
    assert status == 200
    return answer["data"]


def rows(offset: int, *steps: int, value: str = "") -> dict[str, Any]:
    lines = [json.dumps({"_step": step, "value": value}) for step in steps]
    return {"files": {HISTORY: {"offset": offset, "content": lines}}}


def recorded(server: RunningServer) -> Run:
    return server.run("team", "project", "run-1")


def test_lines_are_written_where_the_client_says(server: RunningServer, connection: http.client.HTTPConnection) -> None:
    for body in (rows(0, 0, 1, 2), rows(3, 3), rows(2, 7, 8)):
        assert ask(connection, STREAM, body)[0] == 200
    assert recorded(server).steps == [0, 1, 7, 8]
    assert [(one["position"], one["before"]["_step"]) for one in recorded(server).conflicts] == [(2, 2), (3, 3)]


def test_a_repeated_post_changes_nothing(server: RunningServer, connection: http.client.HTTPConnection) -> None:
    for _ in range(2):
        ask(connection, STREAM, rows(0, 0, 1))
    assert recorded(server).steps == [0, 1]
    assert recorded(server).conflicts == []


def test_an_offset_behind_the_end_leaves_a_hole(server: RunningServer, connection: http.client.HTTPConnection) -> None:
    ask(connection, STREAM, rows(2, 2))
    assert (recorded(server).steps, recorded(server).holes) == ([2], [0, 1])
    ask(connection, STREAM, rows(0, 0, 1))
    assert (recorded(server).steps, recorded(server).holes, recorded(server).conflicts) == ([0, 1, 2], [], [])


def test_the_end_of_a_run_is_kept(server: RunningServer, connection: http.client.HTTPConnection) -> None:
    ask(connection, STREAM, {"preempting": True})
    ask(connection, STREAM, {"complete": True, "exitcode": 143})
    run = recorded(server)
    assert run.exit_codes == [143]
    assert [one["seq"] for one in run.raw["preempting"]] == [1]


def test_an_upsert_changes_what_it_names(server: RunningServer, connection: http.client.HTTPConnection) -> None:
    run = {"entity": "team", "project": "project", "name": "run-1"}
    telemetry = json.dumps({"_wandb": {"value": {"t": {"1": [1]}, "e": {"process-1": {"host": "node"}}}}})
    first = graphql(connection, "UpsertBucket", **run, sweep="sweep-1", groupName="group-1", host="node")
    second = graphql(connection, "UpsertBucket", **run, sweep=None, groupName=None, host=None, config=telemetry)

    assert [one["upsertBucket"]["inserted"] for one in (first, second)] == [True, False]
    assert second["upsertBucket"]["bucket"]["sweepName"] == "sweep-1"
    assert (recorded(server).sweep, recorded(server).group) == ("sweep-1", "group-1")
    assert recorded(server).inserted_count == 1
    assert recorded(server).process_ids == ["process-1"]


def test_a_run_that_was_created_but_not_started_looks_so(connection: http.client.HTTPConnection) -> None:
    run = {"entity": "team", "project": "project", "name": "run-1"}
    assert graphql(connection, "RunResumeStatus", **run) == {"model": None}
    graphql(connection, "UpsertBucket", **run, sweep="sweep-1")
    bucket = graphql(connection, "RunResumeStatus", **run)["model"]["bucket"]
    assert json.loads(bucket["wandbConfig"]) == {}
    ask(connection, STREAM, rows(0, 0, 1))
    bucket = graphql(connection, "RunResumeStatus", **run)["model"]["bucket"]
    assert bucket["historyLineCount"] == 2
    assert [json.loads(line)["_step"] for line in json.loads(bucket["historyTail"])] == [1]


def test_files_go_where_the_server_says(server: RunningServer, connection: http.client.HTTPConnection) -> None:
    answer = graphql(
        connection, "CreateRunFiles", entity="team", project="project", run="run-1", files=["media/a b.png"]
    )
    url = answer["createRunFiles"]["files"][0]["uploadUrl"]
    assert url == f"{server.url}/upload/team/project/run-1/media/a%20b.png"
    assert ask(connection, url.removeprefix(server.url), b"12345", method="PUT")[0] == 200
    assert [(one["name"], one["bytes"]) for one in recorded(server).raw["uploads"]] == [("media/a b.png", 5)]


@pytest.mark.parametrize("operation", ["Viewer", "ServerInfo", "ServerFeaturesQuery", "RunStoppedStatus"])
def test_small_questions_are_answered(connection: http.client.HTTPConnection, operation: str) -> None:
    assert graphql(connection, operation)


def test_unknown_requests_do_no_harm(server: RunningServer, connection: http.client.HTTPConnection) -> None:
    assert graphql(connection, "SomethingNew", entity="team") == {}
    assert ask(connection, "/graphql", {"query": "query Unnamed {viewer}", "variables": None}) == (200, {"data": {}})
    assert ask(connection, "/graphql", ["not", "an", "object"]) == (200, {"data": {}})
    assert ask(connection, "/no/such/path", {})[0] == 404
    assert server.journal().operations() == ["SomethingNew", "Unnamed", ""]
    assert [event["request"]["path"] for event in server.journal().events][-1] == "/no/such/path"


@pytest.mark.parametrize(
    "body",
    [
        {"files": None},
        {"files": {HISTORY: None}},
        {"files": {HISTORY: {"offset": -1, "content": ["{}"]}}},
        {"files": {HISTORY: {"offset": 1 << 60, "content": ["{}"]}}},
        {"files": {HISTORY: {"offset": "0", "content": ["{}"]}}},
        {"files": {HISTORY: {"offset": 0, "content": "{}"}}},
    ],
)
def test_a_malformed_stream_writes_nothing(
    server: RunningServer, connection: http.client.HTTPConnection, body: Any
) -> None:
    assert ask(connection, STREAM, body)[0] == 200
    assert recorded(server).history == []


def test_a_line_that_is_not_json_stays_visible(server: RunningServer, connection: http.client.HTTPConnection) -> None:
    ask(connection, STREAM, {"files": {HISTORY: {"offset": 0, "content": ["{torn"]}}})
    assert recorded(server).history == [{"_unreadable": "{torn"}]


def test_a_zipped_body_is_read(server: RunningServer, connection: http.client.HTTPConnection) -> None:
    zipped = gzip.compress(json.dumps(rows(0, 0, 1)).encode())
    assert ask(connection, STREAM, zipped, Content_Encoding="gzip")[0] == 200
    assert recorded(server).steps == [0, 1]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"plain", {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(b"{}")[:-4], {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(b" " * (MAX_BODY_BYTES + 1)), {"Content_Encoding": "gzip"}, 413),
        (b"", {"Content_Length": str(MAX_BODY_BYTES + 1)}, 413),
        (b"", {"Content_Length": "-1"}, 411),
        (b"0\r\n\r\n", {"Transfer_Encoding": "chunked"}, 411),
    ],
    ids=["cut", "deep", "not gzip", "cut gzip", "large when unpacked", "large", "negative", "chunked"],
)
def test_a_bad_body_is_refused_and_not_recorded(
    server: RunningServer,
    connection: http.client.HTTPConnection,
    body: bytes,
    headers: dict[str, str],
    status: int,
) -> None:
    # What http.client would add by itself is what the test is about.
    connection.putrequest("POST", STREAM)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        if name != "Content_Length" or "Transfer_Encoding" not in headers:
            connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(body)
    response = connection.getresponse()
    assert response.status == status
    assert "error" in json.loads(response.read())
    assert server.journal().seq == 0


def test_a_client_that_dies_within_its_request_leaves_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with serve() as server:
        for hang_up in (0, 1):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", hang_up, 0))
                client.sendall(f"POST {STREAM} HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert server.journal().seq == 0
    assert capfd.readouterr().err == ""


def test_a_connection_and_a_name_tell_writers_apart(
    server: RunningServer, connection: http.client.HTTPConnection
) -> None:
    other = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    ask(connection, STREAM, rows(0, 0))
    ask(other, STREAM, rows(1, 1))
    assert recorded(server).overlapping_writers() == []
    ask(connection, STREAM, rows(2, 2))
    other.close()
    ask(connection, STREAM, rows(3, 3), X_Journal_Writer="attempt-2")

    run = recorded(server)
    assert [(writer.posts, writer.rows) for writer in run.writers] == [(2, 2), (1, 1), (1, 1)]
    assert run.overlapping_writers() == [(run.writers[0], run.writers[1])]
    assert run.writers[2].key == "attempt-2"
    assert run.writers[2].clients == run.writers[0].clients


def test_the_journal_can_be_asked_for_a_part(server: RunningServer, connection: http.client.HTTPConnection) -> None:
    for name in ("run-1", "run-2", "run-3"):
        ask(connection, f"/files/team/project/{name}/file_stream", rows(0, 0))
    part = server.journal(run="run-2")
    assert [run["id"] for run in part.raw["runs"]] == ["run-2"]
    assert [event["seq"] for event in part.events] == [2]
    assert [event["seq"] for event in server.journal(events=2).events] == [2, 3]
    assert server.journal(events=0).events == []
    assert ask(connection, "/journal?events=many", b"", method="GET")[0] == 400
    assert ask(connection, "/healthz", b"", method="GET") == (200, {"ok": True})


def test_a_reader_waits_for_the_next_event(server: RunningServer, connection: http.client.HTTPConnection) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.wait, lambda journal: journal.seq == 2, timeout=10)
        ask(connection, STREAM, rows(0, 0))
        assert not waiting.done()
        ask(connection, STREAM, rows(1, 1))
        assert waiting.result(10).seq == 2


def test_waiting_in_vain_says_what_there_is(server: RunningServer, connection: http.client.HTTPConnection) -> None:
    ask(connection, STREAM, rows(0, 0))
    with pytest.raises(AssertionError, match=r"team/project/run-1 \(1 rows\)"):
        server.wait(lambda journal: journal.seq > 1, timeout=0.1)
    with pytest.raises(LookupError, match="run-1"):
        server.run("team", "project", "run-9")


def test_many_clients_at_once_are_put_in_order(server: RunningServer) -> None:
    def post(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        for step in range(20):
            ask(connection, f"/files/team/project/run-{number}/file_stream", rows(step, step))
        connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(post, range(8)))
    journal: Journal = server.journal()
    assert [event["seq"] for event in journal.events] == list(range(1, 161))
    assert all(journal.run("team", "project", f"run-{number}").steps == list(range(20)) for number in range(8))
