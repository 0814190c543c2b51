"""Many runs that run: what the operator holds in memory, spends and asks of the API server while nothing happens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from aiohttp import web

from bench.measuring import MIB, Row
from support.ports import free_port

from .client import Bare
from .fleet import copy, make_pattern, prepare_namespace
from .operator import Cost, Operator
from .place import Place

NAMESPACES = 5


async def measure(place: Place) -> AsyncIterator[Row]:
    names = [f"idle-{number}" for number in range(NAMESPACES)]
    for name in names:
        await prepare_namespace(place.bare, name)
    pattern = await make_pattern(place, names[0])
    each = place.runs // NAMESPACES
    for name in names:
        await copy(place.bare, pattern, name, [f"run-{number:05}" for number in range(each)])
    place.say(f"{place.runs} runs are there")
    before = await requests_per_second(place.bare, 10)
    port = free_port()
    trainers = await _trainers(port)
    resync = min(180.0, place.seconds)
    settings = {"resync_seconds": f"{resync:.0f}", "progress_seconds": "10", "progress_port": str(port)}
    with Operator(place.kubeconfig, place.directory, **settings) as operator:
        first = await _quiet(operator, place.runs)
        place.say(f"first passes: {first.cpu:.1f} s of a core, {first.resident / MIB:.0f} MB")
        began, asked = operator.cost(), await requests_total(place.bare)
        await asyncio.sleep(place.seconds)
        ended, answered = operator.cost(), await requests_total(place.bare)
    await trainers.cleanup()
    seconds = ended.at - began.at
    busy = 100 * (ended.cpu - began.cpu) / seconds
    calls = max(0.0, (answered - asked) / seconds - before)
    yield Row.at_most(f"memory with {place.runs} runs", ended.resident / MIB, 250, "MB", f"peak {ended.peak / MIB:.0f}")
    passes = f"{(ended.passes - began.passes) / seconds:.1f} passes/s, resync every {resync:.0f} s"
    yield Row.at_most(f"idle CPU with {place.runs} runs", busy, 5, "%", passes)
    hourly = 3600 * calls / place.runs
    yield Row.at_most(
        "requests per run and hour", hourly, 60, "", f"{calls:.1f} requests/s, those for progress included"
    )


async def _quiet(operator: Operator, runs: int) -> Cost:
    """After every run had a pass, and nothing waits."""
    while True:
        cost = operator.cost()
        if cost.passes >= runs and operator.metric("sweeprun_queue_length") == 0:
            await asyncio.sleep(10)
            if operator.metric("sweeprun_queue_length") == 0:
                return operator.cost()
        await asyncio.sleep(1)


async def requests_total(bare: Bare) -> float:
    """All that the API server has answered but watches, its own requests included."""
    text = await bare.text("/metrics")
    lines = re.findall(r"^apiserver_request_total\{([^}]*)\} (\S+)$", text, re.MULTILINE)
    return sum(float(value) for labels, value in lines if 'verb="WATCH"' not in labels)


async def requests_per_second(bare: Bare, seconds: float) -> float:
    before = await requests_total(bare)
    await asyncio.sleep(seconds)
    return (await requests_total(bare) - before) / seconds


async def _trainers(port: int) -> web.AppRunner:
    """What every pod answers at 127.0.0.1: a step that grows."""
    step = 0

    async def progress(_request: web.Request) -> web.Response:
        nonlocal step
        step += 1
        return web.json_response({"epoch": 1, "step": step})

    app = web.Application()
    app.router.add_get("/progress", progress)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner
