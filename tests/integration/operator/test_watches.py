"""Watches that are dead fail the liveness probe in bounded time, and idle ones do not; what kopf dies of is told.

The operator's process and kopf as they are, against a real API server, over a wire that breaks what a test names.
"""

from __future__ import annotations

import asyncio

import pytest
import yaml

from support.faults.history import Namespace
from support.faults.schedule import Fault, Kind, Ledger
from support.faults.upstream import Upstream
from support.faults.wire import Wire
from support.objects import run
from support.operator_process import settings
from sweeprun_operator.controller import health
from sweeprun_operator.core.plan import Plan
from sweeprun_operator.handlers import doorbell
from sweeprun_operator.handlers.doorbell import End
from sweeprun_operator.handlers.process import Process

WATCH_SECONDS = 2
"""After which the API server ends each watch."""
DEAF_SECONDS = 6.0
PATIENCE_SECONDS = 11.0
ALL = 200


class Seeing:
    def __init__(self):
        self.seen = set()

    def decide(self, seen):
        self.seen.add(seen.run.metadata.name)
        return Plan()

    def proof(self, run):
        raise ValueError("no workload in these tests")


@pytest.fixture
def hasty(monkeypatch):
    """Seconds for minutes, of kopf and of the probes; gives what else is to be set."""
    make = doorbell.make_settings
    more = {}

    def made():
        found = make()
        found.watching.server_timeout = WATCH_SECONDS
        found.watching.inactivity_timeout = 2 * WATCH_SECONDS
        found.networking.error_backoffs = (0.1,)
        for name, value in more.items():
            setattr(found.watching, name, value)
        return found

    monkeypatch.setattr(doorbell, "make_settings", made)
    monkeypatch.setattr(doorbell, "DEAF_SECONDS", DEAF_SECONDS)
    monkeypatch.setattr(doorbell, "FIRST_BACKOFF", 0.2)
    monkeypatch.setattr(doorbell, "MOST_BACKOFF", 1.0)
    monkeypatch.setattr(health, "LEAST_PATIENCE_SECONDS", PATIENCE_SECONDS)
    return more


@pytest.fixture
async def begins(control_plane, gateway, cluster, tmp_path, hasty):
    """Starts a process behind a wire with these faults; gives it, what it decides of, and the wire."""
    async with asyncio.TaskGroup() as group, Upstream(control_plane) as upstream:
        ended, wires = asyncio.Event(), []

        async def start(*faults):
            wire = Wire(upstream, Namespace(cluster.namespace), Ledger(faults))
            wires.append(wire)
            line = await wire.line()
            kubeconfig = tmp_path / "kubeconfig"
            kubeconfig.write_text(yaml.safe_dump(config(line.url)))
            decisions, ready = Seeing(), asyncio.get_running_loop().create_future()

            async def live():
                # Only the watches go over the wire: the process itself holds its Lease whatever happens to them.
                chosen = settings(kubeconfig, cluster.namespace, resync_seconds=2.0)
                process = Process(gateway, decisions, chosen)
                ready.set_result(process)
                await process.run(ended)

            group.create_task(live())
            process = await ready
            await until(lambda: process.health.unready() is None)
            return process, decisions, wire

        yield start
        ended.set()
        for wire in wires:
            await wire.close()


def config(url):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "wire", "cluster": {"server": url}}],
        "users": [{"name": "operator", "user": {"token": "none"}}],
        "contexts": [{"name": "wire", "context": {"cluster": "wire", "user": "operator"}}],
        "current-context": "wire",
    }


async def until(look, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not look():  # noqa: ASYNC110  what is waited for is on a server
            await asyncio.sleep(0.05)


def ended(process, reason):
    return process.metrics.registry.get_sample_value("sweeprun_watches_ended_total", {"reason": reason}) or 0


def each(kind, request):
    return (Fault(kind, request, number) for number in range(1, ALL))


async def test_an_idle_cluster_is_no_trouble(begins):
    process, _, wire = await begins()
    loop = asyncio.get_running_loop()
    over = loop.time() + PATIENCE_SECONDS + 2 * WATCH_SECONDS
    while loop.time() < over:
        assert process.health.trouble() is None
        await asyncio.sleep(0.2)
    assert wire.ledger.counts["bell-watch-Pod"] >= 3
    assert sum(ended(process, reason) for reason in End) == 0


async def test_a_watch_that_tells_of_nothing_any_more_fails_the_probe(begins):
    process, _, _ = await begins(*each(Kind.DEAF, "bell-watch-Pod"))
    await until(lambda: process.health.trouble() is not None)
    assert "/pods has heard nothing" in process.health.trouble()
    assert ended(process, End.DEAF) >= 1, "before that, they were started again"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Kind.FORBIDDEN, End.FORBIDDEN), (Kind.UNAUTHORIZED, End.UNAUTHORIZED), (Kind.ERROR, End.SERVER_ERROR)],
)
async def test_a_watch_that_is_refused_for_good_fails_the_probe(begins, kind, reason):
    process, _, wire = await begins(*each(kind, "bell-watch-Job"))
    await until(lambda: process.health.trouble() is not None)
    assert "has heard nothing" in process.health.trouble()
    assert ended(process, reason) >= 2
    assert wire.ledger.counts["bell-watch-Job"] < 60, "with pauses in between"


async def test_an_api_server_that_is_away_fails_the_probe_and_mends_when_it_is_back(begins):
    process, _, wire = await begins()
    wire.away_until = asyncio.get_running_loop().time() + 3600
    for line in wire.lines:
        line.hang_up()
    await until(lambda: process.health.trouble() is not None)
    wire.away_until = 0.0
    await until(lambda: process.health.trouble() is None)


@pytest.mark.parametrize("kind", [Kind.DEAF, Kind.GONE, Kind.UNAUTHORIZED])
async def test_what_ends_the_watches_once_costs_seconds(begins, hasty, cluster, monkeypatch, kind):
    """Runs are told of by their watch alone: resync comes too seldom."""
    if kind is Kind.DEAF:
        hasty |= {"server_timeout": None, "inactivity_timeout": None}  # else kopf makes it again by itself
    monkeypatch.setattr("sweeprun_operator.controller.resync.Resync.run", once)
    manifest = run("first")
    manifest["metadata"] = {"name": "first"}
    cluster.create(manifest)
    process, decisions, wire = await begins(Fault(kind, "bell-watch-SweepRun", 1))
    manifest["metadata"] = {"name": "later"}
    cluster.create(manifest)
    await until(lambda: "later" in decisions.seen, seconds=15)
    assert wire.ledger.struck
    assert sum(ended(process, reason) for reason in End) >= 1


async def once(resync):
    await resync.once()
    await asyncio.Event().wait()
