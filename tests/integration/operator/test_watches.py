"""Watches that are dead fail the liveness probe in bounded time, and idle ones do not; what kopf dies of is told.

kopf as it is, against a real API server, over a wire that breaks what a test names.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest
import yaml

from support.faults.history import Namespace
from support.faults.schedule import Fault, Kind, Ledger
from support.faults.upstream import Upstream
from support.faults.wire import Wire
from support.objects import run
from sweeprun_operator.controller import health
from sweeprun_operator.controller.health import Health
from sweeprun_operator.handlers import doorbell
from sweeprun_operator.handlers.doorbell import Doorbell
from sweeprun_operator.metric_catalogue import End

WATCH_SECONDS = 2
"""After which the API server ends each watch."""
DEAF_SECONDS = 6.0
PATIENCE_SECONDS = 11.0
ALL = 200
KINDS = ("SweepRun", "Job", "PyTorchJob", "Pod")


@dataclass
class Watching:
    """The doorbell behind a wire, and the probe that looks at it."""

    wire: Wire
    bell: Doorbell
    probe: Health
    rang: set[str]
    ends: list[End]

    @property
    def trouble(self) -> str | None:
        self.probe.resynced()  # only the watches are asked about here
        return self.probe.trouble()


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
async def begins(control_plane, cluster, tmp_path, hasty):
    """Starts the watches behind a wire with these faults."""
    made = []
    async with Upstream(control_plane) as upstream:

        async def start(*faults):
            wire = Wire(upstream, Namespace(cluster.namespace), Ledger(faults))
            line = await wire.line()
            kubeconfig = tmp_path / "kubeconfig"
            kubeconfig.write_text(yaml.safe_dump(config(line.url)))
            rang, ends = set(), []
            bell = Doorbell(
                lambda key, _: rang.add(key.name),
                lambda _: None,
                namespaces=(cluster.namespace,),
                kubeconfig=str(kubeconfig),
                ended=ends.append,
            )
            probe = Health(monotonic=time.monotonic, resync_seconds=1.0)
            probe.leads(lambda: bell.silent_seconds, bell.hearing.deafest)
            made.append(Watching(wire, bell, probe, rang, ends))
            bell.start()
            await until(lambda: all(wire.ledger.counts[f"bell-watch-{kind}"] for kind in KINDS))
            return made[-1]

        yield start
        for one in made:
            await asyncio.to_thread(one.bell.stop)
            await one.wire.close()


def config(url):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "wire", "cluster": {"server": url}}],
        "users": [{"name": "operator", "user": {"token": "none"}}],
        "contexts": [{"name": "wire", "context": {"cluster": "wire", "user": "operator"}}],
        "current-context": "wire",
    }


async def until(look, seconds=60.0):
    async with asyncio.timeout(seconds):
        while not look():  # noqa: ASYNC110  what is waited for is on a server
            await asyncio.sleep(0.05)


def each(kind, request):
    return (Fault(kind, request, number) for number in range(1, ALL))


async def test_an_idle_cluster_is_no_trouble(begins):
    watching = await begins()
    over = time.monotonic() + PATIENCE_SECONDS + 2 * WATCH_SECONDS
    while time.monotonic() < over:
        assert watching.trouble is None
        await asyncio.sleep(0.2)
    assert watching.wire.ledger.counts["bell-watch-Pod"] >= 3
    assert watching.ends == []


async def test_a_watch_that_tells_of_nothing_any_more_fails_the_probe(begins):
    watching = await begins(*each(Kind.DEAF, "bell-watch-Pod"))
    await until(lambda: watching.trouble is not None)
    assert "/pods has heard nothing" in watching.trouble
    assert End.DEAF in watching.ends, "before that, they were started again"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Kind.FORBIDDEN, End.FORBIDDEN), (Kind.UNAUTHORIZED, End.UNAUTHORIZED)],
)
async def test_a_watch_that_is_refused_for_good_fails_the_probe(begins, kind, reason):
    watching = await begins(*each(kind, "bell-watch-Job"))
    await until(lambda: watching.trouble is not None)
    assert "has heard nothing" in watching.trouble
    assert set(watching.ends) == {reason}
    assert watching.wire.ledger.counts["bell-watch-Job"] < 60, "with pauses in between"


async def test_an_api_server_that_is_away_fails_the_probe_and_mends_when_it_is_back(begins):
    watching = await begins()
    watching.wire.away_until = asyncio.get_running_loop().time() + 3600
    for line in watching.wire.lines:
        line.hang_up()
    await until(lambda: watching.trouble is not None)
    watching.wire.away_until = 0.0
    await until(lambda: watching.trouble is None)


@pytest.mark.parametrize("kind", [Kind.DEAF, Kind.GONE])
async def test_what_ends_the_watches_once_costs_seconds(begins, hasty, cluster, kind):
    if kind is Kind.DEAF:
        hasty |= {"server_timeout": None, "inactivity_timeout": None}  # else kopf makes it again by itself
    watching = await begins(Fault(kind, "bell-watch-SweepRun", 1))
    manifest = run("later")
    manifest["metadata"] = {"name": "later"}
    cluster.create(manifest)
    await until(lambda: "later" in watching.rang)
    assert watching.wire.ledger.struck
    assert watching.ends != []
