"""What clients have told about their runs, and what they get for an answer.

Pure: the state is the sum of the events and nothing else, so a restarted server that reads its events again is
where it was. What the real service would refuse or repair (a step that comes twice, a second writer) is kept as it
arrived, since finding exactly that is what the tests are for.

Python 3.9 or newer and nothing but the standard library: see server.py, which runs as a file beside this one.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import re
import urllib.parse
from collections.abc import Callable
from typing import Any, Optional

Json = dict[str, Any]
Address = tuple[str, str, str]  # entity, project, run ID

MAX_LINES = 1_000_000
MAX_TRIALS = 1000
DEFAULT_ENTITY = "local"
DEFAULT_PROJECT = "uncategorized"
HISTORY, EVENTS, SUMMARY, OUTPUT = "wandb-history.jsonl", "wandb-events.jsonl", "wandb-summary.json", "output.log"
FILE_STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream")
UPLOAD = re.compile(r"/upload/([^/]+)/([^/]+)/([^/]+)/(.+)")


@dataclasses.dataclass(frozen=True)
class Request:
    """What a client sent, without its credentials."""

    method: str
    path: str
    client: str
    writer: str
    agent: str
    base_url: str
    body: Json


@dataclasses.dataclass(frozen=True)
class Event:
    """A request and when it came."""

    seq: int
    at: float
    request: Request

    @property
    def address(self) -> Optional[Address]:
        """The run that the request is about."""
        match = FILE_STREAM.fullmatch(self.request.path) or UPLOAD.fullmatch(self.request.path)
        if match:
            entity, project, name = (urllib.parse.unquote(part) for part in match.groups()[:3])
            return entity, project, name
        variables = mapping(self.request.body.get("variables"))
        name = text(variables.get("name")) or text(variables.get("run"))
        if not name:
            return None
        return text(variables.get("entity")) or DEFAULT_ENTITY, text(variables.get("project")) or DEFAULT_PROJECT, name

    def stamp(self, **more: Any) -> Json:
        """When and from whom, for the lists that a run keeps."""
        return {"seq": self.seq, "at": self.at, "client": self.request.client, "writer": self.request.writer, **more}


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def quoted(part: str, *, safe: str) -> str:
    return urllib.parse.quote(part, safe, errors="surrogatepass")


def decoded(line: Optional[str]) -> Any:
    """A line as the value it stands for; one that is not JSON remains visible."""
    if line is None:
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return {"_unreadable": line}


def _place(variables: Json, sweep: str) -> Address:
    return text(variables.get("entityName")), text(variables.get("projectName")), sweep


class Run:
    """What the clients have told about one run."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.bucket_id = base64.b64encode(":".join(("Run", "v1", *address)).encode("utf-8", "surrogatepass")).decode()
        self.fields: Json = {}
        self.config: Json = {}
        self.files: dict[str, list[Optional[str]]] = {}
        self.upserts: list[Json] = []
        self.resumes: list[Json] = []
        self.exits: list[Json] = []
        self.preempting: list[Json] = []
        self.conflicts: list[Json] = []
        self.uploads: list[Json] = []
        self.writers: dict[str, Json] = {}
        self.writer_ids: dict[str, Json] = {}

    def lines(self, name: str) -> list[Optional[str]]:
        return self.files.setdefault(name, [])

    def upsert(self, event: Event, variables: Json) -> bool:
        """Take over what is given. A later upsert leaves most fields null, which means unchanged."""
        inserted = not self.upserts
        kept = ("host", "sweep", "groupName", "displayName", "jobType", "tags", "notes", "program", "state", "id")
        given = {key: variables[key] for key in kept if variables.get(key) is not None}
        self.fields.update({key: value for key, value in given.items() if key != "id"})
        config = decoded(variables.get("config")) if isinstance(variables.get("config"), str) else None
        if isinstance(config, dict):
            self.config = config
            # A client names its process here, in a second upsert shortly after the first.
            for writer_id, facts in mapping(mapping(mapping(config.get("_wandb")).get("value")).get("e")).items():
                host = mapping(facts).get("host")
                self.writer_ids.setdefault(writer_id, event.stamp(host=host, started=mapping(facts).get("startedAt")))
        self.upserts.append(event.stamp(inserted=inserted, **given))
        return inserted

    def stream(self, event: Event, body: Json) -> None:
        """Write lines at the offsets that the client believes in, over what is there."""
        rows = 0
        for name, chunk in mapping(body.get("files")).items():
            offset, content = mapping(chunk).get("offset"), mapping(chunk).get("content")
            if not isinstance(content, list) or type(offset) is not int or not 0 <= offset <= MAX_LINES:
                continue
            self._overwrite(event, name, offset, [str(line) for line in content])
            rows += len(content) if name == HISTORY else 0
        if body.get("preempting"):
            self.preempting.append(event.stamp())
        if body.get("complete"):
            self.exits.append(event.stamp(exit_code=body.get("exitcode")))
        key = event.request.writer or event.request.client
        writer = self.writers.setdefault(
            key, {"key": key, "first": event.stamp(), "clients": [], "posts": 0, "rows": 0}
        )
        writer.update(last=event.stamp(), posts=writer["posts"] + 1, rows=writer["rows"] + rows)
        if event.request.client not in writer["clients"]:
            writer["clients"].append(event.request.client)

    def _overwrite(self, event: Event, name: str, offset: int, content: list[str]) -> None:
        lines = self.lines(name)
        lines.extend([None] * (offset - len(lines)))
        for position, line in enumerate(content, offset):
            before = lines[position] if position < len(lines) else None
            # The same line again is a client that repeats a post whose answer it lost.
            if name == HISTORY and before not in (None, line):
                self.conflicts.append(event.stamp(position=position, before=decoded(before), after=decoded(line)))
        lines[offset : offset + len(content)] = content

    @property
    def state(self) -> str:
        """As the real service shows it, but for `crashed`, which takes five minutes without a heartbeat."""
        if not self.exits or (self.resumes and self.resumes[-1]["seq"] > self.exits[-1]["seq"]):
            return "running"
        return "finished" if self.exits[-1]["exit_code"] == 0 else "failed"

    def bucket(self) -> Json:
        """The answer to a client that asks for the run."""
        entity, project, name = self.address
        telemetry = mapping(mapping(self.config.get("_wandb")).get("value")).get("t")
        summary = [line for line in self.lines(SUMMARY) if line is not None]
        owner = {"id": entity, "name": entity}
        return {
            "id": self.bucket_id,
            "name": name,
            "displayName": self.fields.get("displayName") or name,
            "description": None,
            "notes": None,
            "tags": self.fields.get("tags") or [],
            "sweepName": self.fields.get("sweep"),
            "config": json.dumps(self.config),
            # Without this key the client takes the run for one that was created but never started.
            "wandbConfig": json.dumps({} if telemetry is None else {"t": telemetry}),
            "summaryMetrics": summary[-1] if summary else "{}",
            "historyLineCount": len(self.lines(HISTORY)),
            "eventsLineCount": len(self.lines(EVENTS)),
            "logLineCount": len(self.lines(OUTPUT)),
            "historyTail": self._tail(HISTORY),
            "eventsTail": self._tail(EVENTS),
            "project": {"id": project, "name": project, "entity": owner},
        }

    def _tail(self, name: str) -> str:
        return json.dumps([line for line in self.lines(name) if line is not None][-1:])

    def view(self) -> Json:
        """The run as the assertions read it."""
        entity, project, name = self.address
        shown = ("fields", "config", "upserts", "resumes", "exits", "preempting", "conflicts", "uploads", "writer_ids")
        return {
            "entity": entity,
            "project": project,
            "id": name,
            **{key: getattr(self, key) for key in shown},
            "writers": list(self.writers.values()),
            "history": [decoded(line) for line in self.lines(HISTORY)],
            "summary": decoded(next(iter(self.lines(SUMMARY)), None) or "{}"),
            "output": self.lines(OUTPUT),
            "line_counts": {file: len(lines) for file, lines in self.files.items()},
        }


class State:
    """All runs, and what each request gets for an answer."""

    def __init__(self) -> None:
        self.runs: dict[Address, Run] = {}
        self.deleted: set[Address] = set()
        self.sweeps: dict[Address, list[Json]] = {}
        """The trials that each sweep has still to give."""
        self.agents: dict[str, Address] = {}
        self._resolvers: dict[str, Callable[[Event, Json], Json]] = {
            "Viewer": self._viewer,
            "GetDefaultEntity": self._viewer,
            "RunResumeStatus": self._resume_status,
            "Run": self._public_run,
            "RunHistoryKeys": self._public_run,
            "UpsertBucket": self._upsert_bucket,
            "DeleteRun": self._delete_run,
            "UpsertSweep": self._upsert_sweep,
            "CreateAgent": self._create_agent,
            "Heartbeat": self._heartbeat,
            "CreateRunFiles": self._create_run_files,
            "RunStoppedStatus": lambda _event, _variables: {"project": {"run": {"stopped": False}}},
            "ServerFeaturesQuery": lambda _event, _variables: {"serverInfo": {"features": []}},
            "ServerInfo": lambda _event, _variables: {
                "serverInfo": {"cliVersionInfo": {}, "latestLocalVersionInfo": {}}
            },
        }

    def apply(self, event: Event) -> tuple[int, Json]:
        """Take the event in. Depends on nothing but earlier events, so that replaying them gives the same."""
        request, address = event.request, event.address
        if request.method == "POST" and request.path == "/graphql":
            resolve = self._resolvers.get(text(request.body.get("operation")))
            if resolve == self._upsert_bucket and address in self.deleted:
                message = f"run {address[2]} was previously created and deleted; try a new run name"
                return 409, {"errors": [{"message": message}]}
            # An empty answer is what the client shrugs off, whatever it asked for.
            return 200, {"data": resolve(event, mapping(request.body.get("variables"))) if resolve else {}}
        if address and request.method == "POST":
            # Also without an upsert: a server that lost its memory must not make clients lose rows.
            self._run(address).stream(event, request.body)
            return 200, {"exitcode": None, "limits": {}}
        if address and request.method == "PUT":
            name = urllib.parse.unquote(request.path.split("/", 5)[5])
            self._run(address).uploads.append(event.stamp(name=name, **request.body))
            return 200, {}
        return 404, {"error": "this server does not know the path"}

    def _run(self, address: Address) -> Run:
        return self.runs.setdefault(address, Run(address))

    def _viewer(self, _event: Event, _variables: Json) -> Json:
        entity = {
            "id": DEFAULT_ENTITY,
            "entity": DEFAULT_ENTITY,
            "username": DEFAULT_ENTITY,
            "email": "",
            "flags": "{}",
        }
        return {"viewer": {**entity, "teams": {"edges": []}}}

    def _resume_status(self, event: Event, _variables: Json) -> Json:
        run = self.runs.get(event.address) if event.address else None
        if run is None:
            return {"model": None}
        run.resumes.append(event.stamp(lines=len(run.lines(HISTORY))))
        return {"model": {"id": run.address[1], "name": run.address[1], "bucket": run.bucket()}}

    def _public_run(self, event: Event, _variables: Json) -> Json:
        """As the client's public API asks for a run. Of keys that mean nothing here it takes the absence for null."""
        run = self.runs.get(event.address) if event.address else None
        if run is None:
            return {"project": {"run": None}}
        rows = [mapping(decoded(line)) for line in run.lines(HISTORY)]
        steps = [row["_step"] for row in rows if isinstance(row.get("_step"), int)]
        keys = {"lastStep": max(steps, default=-1)}
        return {"project": {"run": {**run.bucket(), "state": run.state, "historyKeys": keys}}}

    def _upsert_bucket(self, event: Event, variables: Json) -> Json:
        if event.address is None:
            return {}
        run = self._run(event.address)
        inserted = run.upsert(event, variables)
        return {"upsertBucket": {"inserted": inserted, "bucket": run.bucket()}}

    def _delete_run(self, _event: Event, variables: Json) -> Json:
        """As the public API deletes it. Its name is not free afterwards."""
        for address, run in tuple(self.runs.items()):
            if run.bucket_id == variables.get("id"):
                del self.runs[address]
                self.deleted.add(address)
        return {"deleteRun": {"clientMutationId": None}}

    def _upsert_sweep(self, _event: Event, variables: Json) -> Json:
        """A grid over `parameters` of a configuration that is JSON, which is YAML."""
        parameters = mapping(mapping(decoded(text(variables.get("config")))).get("parameters"))
        choices = [
            [(str(name), value) for value in values]
            for name, given in parameters.items()
            if isinstance(values := mapping(given).get("values"), list)
        ]
        name = f"sweep{len(self.sweeps)}"
        points = itertools.islice(itertools.product(*choices), MAX_TRIALS)
        self.sweeps[_place(variables, name)] = [
            {"type": "run", "run_id": f"{name}trial{number}", "args": {key: {"value": value} for key, value in point}}
            for number, point in enumerate(points)
        ]
        return {"upsertSweep": {"sweep": {"name": name}, "configValidationWarnings": []}}

    def _create_agent(self, _event: Event, variables: Json) -> Json:
        agent = f"agent{len(self.agents)}"
        self.agents[agent] = _place(variables, text(variables.get("sweep")))
        return {"createAgent": {"agent": {"id": agent}}}

    def _heartbeat(self, _event: Event, variables: Json) -> Json:
        """One trial for each that asks, as long as there are some."""
        agent = text(variables.get("id"))
        trials = self.sweeps.get(self.agents.get(agent, ("", "", "")), [])
        command = trials.pop(0) if trials else {"type": "exit"}
        return {"agentHeartbeat": {"agent": {"id": agent}, "commands": json.dumps([command])}}

    def _create_run_files(self, event: Event, variables: Json) -> Json:
        if event.address is None:
            return {}
        path = "/".join(quoted(part, safe="") for part in event.address)
        names = variables.get("files")
        files = [
            {"name": name, "uploadUrl": f"{event.request.base_url}/upload/{path}/{quoted(name, safe='/')}"}
            for name in (names if isinstance(names, list) else [])
            if isinstance(name, str)
        ]
        return {"createRunFiles": {"runID": self._run(event.address).bucket_id, "uploadHeaders": [], "files": files}}
