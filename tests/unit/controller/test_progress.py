"""Progress is a tenant's word: asked of one pod, bounded, checked, and written only where it still belongs."""

import asyncio
import contextlib
import resource
import zlib
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from aiohttp import web

from support.memory_gateway import MemoryGateway
from support.objects import UID, condition, current, run, trainer_pod, with_labels
from sweeprun_operator.cluster.departures import Departures
from sweeprun_operator.cluster.gather import gather
from sweeprun_operator.cluster.versions import version, versions
from sweeprun_operator.controller import progress
from sweeprun_operator.controller.progress import ANSWER_BYTES, ProgressPoller
from sweeprun_operator.controller.queue import Key
from sweeprun_operator.controller.rest import Rest
from sweeprun_protocol.keys import UID_LABEL

KEY = Key("default", "run")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ANSWER = b'{"epoch": 4, "step": 70}'


def status(**more):
    return {"conditions": [condition("Accepted")], "current": current("Running", epoch=4, **more)}


class Trainer:
    def __init__(self):
        self.answer = {"epoch": 4, "step": 70}
        self.asked = 0

    async def progress(self, request):
        self.asked += 1
        if isinstance(self.answer, dict):
            return web.json_response(self.answer)
        if isinstance(self.answer, int):
            return web.Response(status=self.answer, headers={"Location": "/elsewhere"})
        return web.Response(body=self.answer)


@pytest.fixture
async def trainer():
    made = Trainer()
    app = web.Application()
    app.router.add_get("/progress", made.progress)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


def pod(kind="master", ip="127.0.0.1", phase="Running", attempt=0):
    return trainer_pod(attempt, kind, status={"phase": phase, "podIP": ip})


@pytest.fixture
def gateway():
    made = MemoryGateway()
    made.put("SweepRun", run(status=status()))
    made.put("Pod", pod())
    return made


def poller_of(gateway, trainer, rest=None):
    return ProgressPoller(
        gateway,
        port=trainer.port,
        every_seconds=1,
        clock=lambda: NOW,
        rest=rest or Rest(monotonic=lambda: 0.0, wake=lambda key: None),
    )


async def passed(gateway, poller, name="run"):
    found = await gather(
        gateway,
        namespace="default",
        name=name,
        now=NOW,
        cluster_id="c",
        proof=lambda run: pytest.fail("not asked"),
        departures=Departures(),
    )
    poller.seen(Key("default", name), found.observation)


async def poll(gateway, trainer, *, meanwhile=lambda: None, rest=None):
    poller = poller_of(gateway, trainer, rest)
    await passed(gateway, poller)
    meanwhile()
    async with poller:
        await poller.once()
    return gateway.read("SweepRun", "run")["status"].get("progress")


async def calls_of(gateway, poller):
    """What a poll asks of the cluster."""
    before = len(gateway.calls)
    await poller.once()
    return [(method, kind) for method, kind, _ in gateway.calls[before:]]


async def test_a_running_attempts_step_is_written(gateway, trainer):
    assert await poll(gateway, trainer) == {"step": 70, "time": "2026-01-02T03:04:05Z"}
    assert gateway.read("SweepRun", "run")["status"]["current"]["epoch"] == 4


async def test_no_pass_has_to_see_a_step(gateway, trainer):
    rest = Rest(monotonic=lambda: 0.0, wake=lambda key: None)
    rest.found(KEY, versions([gateway.read("SweepRun", "run"), gateway.read("Pod", "run-a0-master-0")]))
    await poll(gateway, trainer, rest=rest)
    written = [gateway.read("SweepRun", "run"), gateway.read("Pod", "run-a0-master-0")]
    assert written[0]["status"]["progress"]["step"] == 70
    assert rest.holds(KEY, versions(written))


async def test_a_step_on_a_run_that_no_pass_has_read_hides_nothing(gateway, trainer):
    rest = Rest(monotonic=lambda: 0.0, wake=lambda key: None)
    rest.found(KEY, versions([gateway.read("SweepRun", "run")]))
    gateway.put("SweepRun", gateway.read("SweepRun", "run"))
    await poll(gateway, trainer, rest=rest)
    assert not rest.holds(KEY, versions([gateway.read("SweepRun", "run")]))
    assert not rest.has_read(KEY, version(gateway.read("SweepRun", "run")))


async def test_a_step_that_stands_already_is_not_written_again(gateway, trainer):
    await poll(gateway, trainer)
    before = gateway.read("SweepRun", "run")["metadata"]["resourceVersion"]
    await poll(gateway, trainer)
    assert gateway.read("SweepRun", "run")["metadata"]["resourceVersion"] == before


@pytest.mark.parametrize(
    "answer",
    [
        {"epoch": 3, "step": 70},
        {"epoch": 4},
        {"epoch": 4, "step": -1},
        {"epoch": 4, "step": "70"},
        {"step": 70},
        {"epoch": 4, "step": 70.5},
        {"epoch": 4, "step": True},
        {"epoch": 4, "step": 10**13},
        {"epoch": 4.0, "step": 70},
        b'{"epoch": 4, "step": NaN}',
        b'{"epoch": 4, "step": 1e999}',
        b'{"epoch": 4, "step": ' + b"9" * 4000 + b"}",
        b'{"epoch": 4, "step": 70, "more": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"epoch": 4, "step": 70, "more": "\xff"}',
        b"[]",
        b"{",
        b"",
        b'{"epoch": 4, "step": 70' + b" " * ANSWER_BYTES + b"}",
        500,
        302,
    ],
)
async def test_what_is_no_progress_of_this_epoch_is_left_out(gateway, trainer, answer):
    trainer.answer = answer
    assert await poll(gateway, trainer) is None
    assert trainer.asked == 1


@pytest.mark.parametrize("gone", [pod(phase="Pending"), pod(attempt=1), pod(ip=""), pod(ip="127.0.0.2")])
async def test_a_pod_that_cannot_answer_harms_nothing(gateway, trainer, gone):
    gateway.remove("Pod", "run-a0-master-0")
    gateway.put("Pod", gone)
    assert await poll(gateway, trainer) is None


async def says_nothing(writer):
    await asyncio.sleep(60)


async def drips(writer):
    """A byte now and then: no single read takes long."""
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n" + ANSWER:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def never_ends(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


async def floods_headers(writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: " + b"x" * 4000 + b"\r\n")
        await writer.drain()


async def only_announces(writer):
    while True:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        await writer.drain()


async def is_packed(writer):
    """Small on the wire: 32 MiB of blanks around the answer."""
    packing = zlib.compressobj(wbits=31)
    body = b"".join(packing.compress(part) for part in (ANSWER, *[b" " * (64 << 10)] * 512)) + packing.flush()
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def breaks_off(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n" + ANSWER[:10])
    await writer.drain()


async def is_honest(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n" + ANSWER)
    await writer.drain()


@contextlib.asynccontextmanager
async def listening(behave, address="127.0.0.1", port=0):
    """A pod whose port does this."""
    connections = set()

    async def serve(reader, writer):
        connections.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
                await behave(writer)
            writer.close()
        finally:
            if not writer.is_closing():
                writer.transport.abort()

    server = await asyncio.start_server(serve, address, port)
    try:
        yield SimpleNamespace(port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


@pytest.mark.parametrize(
    "behave", [says_nothing, drips, never_ends, floods_headers, only_announces, is_packed, breaks_off]
)
@pytest.mark.timeout(30)
async def test_a_pod_that_answers_otherwise_costs_no_more_than_its_time_and_some_memory(gateway, behave, monkeypatch):
    monkeypatch.setattr(progress, "ANSWER_SECONDS", 0.5)  # dripping takes three seconds
    async with listening(behave) as port:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert await poll(gateway, port) is None
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10  # KiB


async def test_twin_the_same_answer_from_an_honest_pod_is_written(gateway):
    async with listening(is_honest) as port:
        assert (await poll(gateway, port))["step"] == 70


@pytest.mark.timeout(30)
async def test_a_pod_that_does_not_answer_delays_no_other(gateway, trainer, monkeypatch):
    monkeypatch.setattr(progress, "ANSWER_SECONDS", 3600.0)
    gateway.put("SweepRun", run("other", uid="uid-other", status=status()))
    gateway.put("Pod", of_other(pod(ip="127.0.0.3")))
    async with listening(says_nothing, "127.0.0.3", trainer.port), poller_of(gateway, trainer) as poller:
        for name in ("other", "run"):
            await passed(gateway, poller, name)
        polling = asyncio.create_task(poller.once())
        while "progress" not in gateway.read("SweepRun", "run")["status"]:
            assert not polling.done()
            await asyncio.sleep(0.01)
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await polling
    assert "progress" not in gateway.read("SweepRun", "other")["status"]


def of_other(raw):
    raw["metadata"]["name"] = "other-a0-master-0"
    return with_labels(raw, {UID_LABEL: "uid-other"})


async def test_a_pod_without_an_entrypoint_is_not_asked(gateway, trainer):
    bare = pod()
    bare["spec"]["initContainers"] = [{"name": "sweeprun-check"}]
    gateway.put("Pod", bare)
    assert await poll(gateway, trainer) is None
    assert trainer.asked == 0


async def test_the_master_is_asked_first(gateway, trainer):
    gateway.put("Pod", trainer_pod(0, "alpha", status={"phase": "Running", "podIP": "127.0.0.2"}))
    assert (await poll(gateway, trainer))["step"] == 70


@pytest.mark.parametrize("later", [{"state": "Draining"}, {"epoch": 5}, {"attempt": 1}])
async def test_a_run_that_went_on_meanwhile_is_left_alone(gateway, trainer, later):
    def go_on():
        raw = gateway.read("SweepRun", "run")
        gateway.put("SweepRun", {**raw, "status": {**raw["status"], "current": {**raw["status"]["current"], **later}}})

    assert await poll(gateway, trainer, meanwhile=go_on) is None


async def test_another_run_of_the_same_name_is_left_alone(gateway, trainer):
    def replace():
        gateway.put("SweepRun", run(uid="another", status=status()))

    assert await poll(gateway, trainer, meanwhile=replace) is None
    assert UID != "another"


async def test_only_running_attempts_are_asked(gateway, trainer):
    gateway.put("SweepRun", run(status={**status(), "current": current("Starting", epoch=4)}))
    assert await poll(gateway, trainer) is None
    assert trainer.asked == 0


async def test_an_attempt_that_goes_on_costs_a_read_and_a_write(gateway, trainer):
    poller = poller_of(gateway, trainer)
    await passed(gateway, poller)
    async with poller:
        await poller.once()
        trainer.answer["step"] = 80
        assert await calls_of(gateway, poller) == [("get", "SweepRun"), ("replace", "SweepRun")]
        assert await calls_of(gateway, poller) == [], "nothing new"
    assert trainer.asked == 3
    assert gateway.read("SweepRun", "run")["status"]["progress"]["step"] == 80


async def test_a_pod_that_answers_no_more_is_looked_for_again(gateway, trainer):
    poller = poller_of(gateway, trainer)
    await passed(gateway, poller)
    async with poller:
        await poller.once()
        port, poller._port = poller._port, 1
        assert await calls_of(gateway, poller) == []
        poller._port, trainer.answer["step"] = port, 80
        assert ("list", "Pod") in await calls_of(gateway, poller)
    assert gateway.read("SweepRun", "run")["status"]["progress"]["step"] == 80


async def test_a_step_that_a_pass_no_longer_finds_is_written_again(gateway, trainer):
    poller = poller_of(gateway, trainer)
    await passed(gateway, poller)
    async with poller:
        await poller.once()
        gateway.put("SweepRun", run(status=status()))
        await passed(gateway, poller)
        await poller.once()
    assert gateway.read("SweepRun", "run")["status"]["progress"]["step"] == 70
