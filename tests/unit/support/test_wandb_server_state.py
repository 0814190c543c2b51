"""Whatever a client sends, the W&B test server can take it in, and again when it reads its journal."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from support.wandb_server.state import EVENTS, HISTORY, SUMMARY, Event, Request, State

OPERATIONS = [
    *("Viewer", "RunResumeStatus", "UpsertBucket", "CreateRunFiles", "RunStoppedStatus", "Unknown"),
    *("Run", "RunHistoryKeys", "DeleteRun", "UpsertSweep", "CreateAgent", "Heartbeat"),
]
KEYS = [
    *("entity", "project", "name", "run", "config", "files", "sweep", "tags", "offset", "content"),
    *(
        "id",
        "entityName",
        "projectName",
        "complete",
        "exitcode",
        "preempting",
        HISTORY,
        EVENTS,
        SUMMARY,
        "_wandb",
        "value",
        "e",
        "t",
    ),
]

texts = st.text(st.characters(), max_size=5) | st.sampled_from(
    ["{}", '{"parameters": {"lr": {"values": [1, [2]]}}}', '{"_wandb": 1}', '{"_wandb": {"value": {"e": [1]}}}']
)
scalars = st.none() | st.booleans() | st.integers(-2, 50) | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(KEYS), values, max_size=6)


def request(method: str, path: str, body: dict[str, Any]) -> Request:
    return Request(method, path, "127.0.0.1:1", "", "agent", "http://server", body)


graphql = st.builds(
    lambda operation, variables: request("POST", "/graphql", {"operation": operation, "variables": variables}),
    st.sampled_from(OPERATIONS),
    objects,
)
streams = st.builds(lambda body: request("POST", "/files/e/p/%FF%2F/file_stream", body), objects)
uploads = st.builds(lambda body: request("PUT", "/upload/e/p/r/dir%2Ffile", {"bytes": 0, "sha256": ""}), st.none())


def shown(state: State) -> str:
    return json.dumps([run.view() for run in state.runs.values()])


@given(st.lists(graphql | streams | uploads, max_size=6))
def test_every_request_is_taken_in_and_replays_to_the_same(requests: list[Request]) -> None:
    live, replayed = State(), State()
    for seq, one in enumerate(requests, 1):
        event = Event(seq, float(seq), one)
        answer = live.apply(event)
        kept = json.loads(json.dumps(dataclasses.asdict(event)))
        again = replayed.apply(Event(kept["seq"], kept["at"], Request(**kept["request"])))
        assert json.dumps(again) == json.dumps(answer)
    assert shown(live) == shown(replayed)
