"""One namespace with many evicted runs beside another with one: what the large one costs the small one."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator

from bench.measuring import Row

from .client import Bare, place
from .evictions import evict, until
from .fleet import copy, make_pattern, prepare_namespace
from .kubelets import Kubelets, elsewhere
from .operator import Operator, settled
from .place import Place

LARGE, SMALL = "large", "small"
TIMES = 9
"""Runs that are evicted alone, and as many beside: one each time, when the one before has recovered."""


async def measure(where: Place) -> AsyncIterator[Row]:
    bare = where.bare
    for name in (LARGE, SMALL):
        await prepare_namespace(bare, name)
    names = [f"run-{number:05}" for number in range(where.runs)]
    alone, beside = ([f"{word}-{number}" for number in range(TIMES)] for word in ("alone", "beside"))
    pattern = await make_pattern(where, SMALL)
    await copy(bare, pattern, LARGE, names)
    await copy(bare, pattern, SMALL, [*alone, *beside])
    with elsewhere(bare.server, LARGE):
        async with Kubelets(bare, namespace=SMALL) as kubelets:
            with Operator(where.kubeconfig, where.directory) as operator:
                await settled(operator, where.runs)
                made = kubelets.first["PyTorchJob"]
                quiet = await _answer_seconds(bare)
                usual = [await _recovered(where, name, made) for name in alone]
                where.say(f"alone: {statistics.median(usual):.2f} s")
                await evict(bare, [(LARGE, f"{name}-a0-master-0") for name in names])
                delayed = [await _recovered(where, name, made) for name in beside]
                busy = await _answer_seconds(bare)
                there = sum(raw["metadata"]["name"].endswith("-a1") for raw in await bare.list("PyTorchJob", LARGE))
    median, worst = statistics.median(usual), max(delayed)
    detail = (
        f"{statistics.median(delayed):.1f} s beside {median:.1f} s alone, at worst {worst:.1f} s of {TIMES}; by then "
        f"{there} of {where.runs} had their next attempt; the API server answered a bare read in {1000 * busy:.0f} ms "
        f"beside {1000 * quiet:.0f} ms"
    )
    delay = statistics.median(delayed) - median
    yield Row.at_most(f"delay by a namespace with {where.runs} evicted runs, median", delay, 2, "s", detail)
    yield Row.at_most("the worst of them", worst - median, 2, "s")


READS = 20


async def _answer_seconds(bare: Bare) -> float:
    """Of one read that has nothing to do with the operator: what the machine itself makes everybody wait."""
    began = time.monotonic()
    for _ in range(READS):
        await bare.call("GET", place("SweepRun", SMALL, "alone-0"))
    return (time.monotonic() - began) / READS


async def _recovered(where: Place, name: str, made: dict[tuple[str, str], float]) -> float:
    """Seconds from the eviction of a run in the small namespace to its next attempt's PyTorchJob."""
    began = time.monotonic()
    await evict(where.bare, [(SMALL, f"{name}-a0-master-0")])
    await until(lambda: (SMALL, f"{name}-a1") in made, 300 + where.runs)
    return made[SMALL, f"{name}-a1"] - began
