"""A run that only trains costs no passes: not for the steps that the operator writes itself, nor for its resyncs."""

from __future__ import annotations

import pytest
from aiohttp import web

from support.manifests import make_claim, make_sweeprun, make_template
from support.operator_process import running, settings, until
from support.passes import Passes
from sweeprun_operator.handlers import process as processes

NAME = "run"
POD = "run-a0-master-0"


class Trainer:
    """What a pod answers: a step that grows with every question."""

    step = 0

    async def progress(self, _request):
        self.step += 1
        return web.json_response({"epoch": 1, "step": self.step})


@pytest.fixture
async def trainer():
    made, app = Trainer(), web.Application()
    app.router.add_get("/progress", made.progress)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def trains(gateway, decisions, cluster):
    cluster.create(make_claim())
    cluster.create(make_sweeprun(NAME, template=make_template(workers=0)))
    story = Passes(gateway, decisions, cluster, NAME)
    await story.starts()
    story.played.start_attempt("run-a0")
    cluster.patch("Pod", POD, {"status": {"podIP": "127.0.0.1"}}, subresource="/status")
    await story.state("Running")
    await story.settle()
    return story


@pytest.fixture
def passes(monkeypatch):
    """Names of the runs that passes were made over, in order."""
    made = []

    class Counted(processes.Reconciler):
        async def reconcile(self, key):
            made.append(key.name)
            return await super().reconcile(key)

    monkeypatch.setattr(processes, "Reconciler", Counted)
    return made


def shown(cluster):
    return cluster.get("SweepRun", NAME)["status"].get("progress", {}).get("step", 0)


async def test_steps_and_resyncs_make_no_passes(gateway, decisions, cluster, kubeconfig, trains, trainer, passes):
    chosen = settings(
        kubeconfig, cluster.namespace, resync_seconds=0.5, progress_seconds=0.3, progress_port=trainer.port
    )
    lists = []
    async with running(gateway, decisions, chosen) as process:
        process.health.resynced = lambda: lists.append(1)
        await until(lambda: shown(cluster) >= 3, 20)
        before, listed, made = shown(cluster), len(lists), len(passes)
        await until(lambda: shown(cluster) >= before + 8 and len(lists) >= listed + 4, 20)
        assert len(passes) - made == 0
        cluster.patch("SweepRun", NAME, {"metadata": {"annotations": {"changed": "by somebody"}}})
        await until(lambda: len(passes) > made, 20)
