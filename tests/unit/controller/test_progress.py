"""Progress is a tenant's word: asked of one pod, bounded, checked, and written only where it still belongs."""

from datetime import UTC, datetime

import pytest
from aiohttp import web

from support.memory_gateway import MemoryGateway
from support.objects import UID, condition, current, run, trainer_pod
from sweeprun_operator.cluster.departures import Departures
from sweeprun_operator.cluster.gather import gather
from sweeprun_operator.cluster.versions import version, versions
from sweeprun_operator.controller.progress import ANSWER_BYTES, ProgressPoller
from sweeprun_operator.controller.queue import Key
from sweeprun_operator.controller.rest import Rest

KEY = Key("default", "run")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


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


async def passed(gateway, poller):
    found = await gather(
        gateway,
        namespace="default",
        name="run",
        now=NOW,
        cluster_id="c",
        proof=lambda run: pytest.fail("not asked"),
        departures=Departures(),
    )
    poller.seen(KEY, found.observation)


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
        b"[]",
        b"{",
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
