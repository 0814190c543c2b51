"""The journal of the test server, as the assertions of a test read it."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Writer:
    """One source of posts to a run's file stream: a connection, or what a test named with X-Journal-Writer."""

    key: str
    first_seq: int
    last_seq: int
    first_at: float
    last_at: float
    posts: int
    rows: int
    clients: tuple[str, ...]

    @classmethod
    def parse(cls, raw: Json) -> Writer:
        first, last = raw["first"], raw["last"]
        return cls(
            key=raw["key"],
            first_seq=first["seq"],
            last_seq=last["seq"],
            first_at=first["at"],
            last_at=last["at"],
            posts=raw["posts"],
            rows=raw["rows"],
            clients=tuple(raw["clients"]),
        )

    def overlaps(self, other: Writer) -> bool:
        """Whether one posted between two posts of the other, which no resumption does."""
        return self.first_seq < other.last_seq and other.first_seq < self.last_seq


@dataclass(frozen=True)
class Run:
    """What the clients told about one run. `raw` has the rest: config, fields, uploads, output, ..."""

    entity: str
    project: str
    id: str
    ids: tuple[str, ...]
    """The IDs of all runs of the project. One that the test did not expect is a trial that lost its ID."""
    raw: Json

    @property
    def history(self) -> list[Json]:
        """The rows in the order of the server's lines, without the holes."""
        return [row for row in self.raw["history"] if row is not None]

    @property
    def holes(self) -> list[int]:
        """Lines that no client ever wrote: an offset pointed behind the end."""
        return [position for position, row in enumerate(self.raw["history"]) if row is None]

    @property
    def steps(self) -> list[int]:
        """W&B's own step of each row."""
        return [row["_step"] for row in self.history]

    def values(self, metric: str) -> list[Any]:
        """The metric in each row that has it, `trainer/global_step` for one."""
        return [row[metric] for row in self.history if metric in row]

    def duplicate_steps(self) -> list[int]:
        return sorted(step for step, count in Counter(self.steps).items() if count > 1)

    def missing_steps(self, first: int, last: int) -> list[int]:
        """Steps without a row, of those from `first` to `last`, both included."""
        return sorted(set(range(first, last + 1)) - set(self.steps))

    @property
    def conflicts(self) -> list[Json]:
        """Rows that were written over with something else: two writers that both believed in the same offset."""
        return list(self.raw["conflicts"])

    @property
    def exit_codes(self) -> list[int | None]:
        """One for each time that a client called the run complete. A killed client leaves none."""
        return [end["exit_code"] for end in self.raw["exits"]]

    @property
    def inserted_count(self) -> int:
        """How often the run was made anew; 1 for a run that has only ever been continued."""
        return sum(upsert["inserted"] for upsert in self.raw["upserts"])

    @property
    def resumed_at(self) -> list[int]:
        """For each client that asked for the run and found it: how many rows there were."""
        return [resume["lines"] for resume in self.raw["resumes"]]

    @property
    def sweep(self) -> str | None:
        return self._field("sweep")

    @property
    def group(self) -> str | None:
        return self._field("groupName")

    def _field(self, name: str) -> str | None:
        value: str | None = self.raw["fields"].get(name)
        return value

    @property
    def summary(self) -> Json:
        summary: Json = self.raw["summary"]
        return summary

    @property
    def process_ids(self) -> list[str]:
        """The IDs that the clients gave themselves, one for each wandb process that got past its start."""
        return list(self.raw["writer_ids"])

    @property
    def writers(self) -> list[Writer]:
        return [Writer.parse(writer) for writer in self.raw["writers"]]

    def overlapping_writers(self) -> list[tuple[Writer, Writer]]:
        """Pairs that wrote at the same time. Empty for a run whose writers took over from each other."""
        return [(one, other) for one, other in combinations(self.writers, 2) if one.overlaps(other)]


@dataclass(frozen=True)
class Journal:
    """The whole journal, or the part of it that was asked for."""

    raw: Json

    @classmethod
    def parse(cls, data: bytes | str) -> Journal:
        """From the body of GET /journal, however it was got (`kubectl get --raw .../proxy/journal`)."""
        return cls(json.loads(data))

    @classmethod
    def fetch(cls, url: str, query: Mapping[str, str | float] | None = None, *, timeout: float = 10) -> Journal:
        """Ask the server at `url`. The query bounds the answer: entity, project, run, events (a count), after, wait."""
        target = f"{url.rstrip('/')}/journal?{urllib.parse.urlencode(query or {})}"
        # The server is near: a proxy that the machine's environment names could not reach it.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(target, timeout=timeout) as response:
            return cls.parse(response.read())

    @classmethod
    def wait(
        cls,
        url: str,
        condition: Callable[[Journal], object],
        *,
        timeout: float,
        query: Mapping[str, str | float] | None = None,
    ) -> Journal:
        """Fetch at once and after every event, until the condition holds.

        Raises:
            AssertionError: it did not come true in time. The message ends with what the journal held then.
        """
        end = time.monotonic() + timeout
        journal = cls.fetch(url, query)
        while not condition(journal):
            left = end - time.monotonic()
            if left <= 0:
                raise AssertionError(f"not within {timeout} s; the journal: {journal.outline()}")
            wait = min(left, 20)
            journal = cls.fetch(url, {**(query or {}), "after": journal.seq, "wait": wait}, timeout=wait + 10)
        return journal

    @property
    def seq(self) -> int:
        """The number of the last event."""
        seq: int = self.raw["seq"]
        return seq

    @property
    def events(self) -> list[Json]:
        """The requests in their order: seq, at, and request with method, path, client, writer, agent and body."""
        return list(self.raw["events"])

    def operations(self) -> list[str]:
        """The names of the GraphQL requests, in their order."""
        bodies = [event["request"]["body"] for event in self.events if event["request"]["path"] == "/graphql"]
        return [body["operation"] for body in bodies]

    def ids(self, entity: str, project: str, *, sweep: str | None = None) -> list[str]:
        """The run IDs of a project, or of one sweep in it."""
        runs = [run for run in self.raw["runs"] if (run["entity"], run["project"]) == (entity, project)]
        return [run["id"] for run in runs if sweep is None or run["fields"].get("sweep") == sweep]

    def find(self, entity: str, project: str, run_id: str) -> Run | None:
        """The run, if any client has written to it."""
        for raw in self.raw["runs"]:
            if (raw["entity"], raw["project"], raw["id"]) == (entity, project, run_id):
                return Run(entity, project, run_id, tuple(self.ids(entity, project)), raw)
        return None

    def run(self, entity: str, project: str, run_id: str) -> Run:
        """The run.

        Raises:
            LookupError: there is none; the message names those that there are.
        """
        run = self.find(entity, project, run_id)
        if run is None:
            raise LookupError(f"no run {entity}/{project}/{run_id}; the journal: {self.outline()}")
        return run

    def outline(self) -> str:
        """One line for the message of a failed assertion."""
        runs = [
            f"{run['entity']}/{run['project']}/{run['id']} ({len(run['history'])} rows)" for run in self.raw["runs"]
        ]
        return f"{self.seq} events, runs: {', '.join(runs) or 'none'}"
