"""One namespace with many evicted runs beside another with one: what the large one costs the small one."""

from __future__ import annotations

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


async def measure(where: Place) -> AsyncIterator[Row]:
    bare = where.bare
    for name in (LARGE, SMALL):
        await prepare_namespace(bare, name)
    names = [f"run-{number:05}" for number in range(where.runs)]
    pattern = await make_pattern(where, SMALL)
    await copy(bare, pattern, LARGE, names)
    await copy(bare, pattern, SMALL, ["alone", "beside"])
    with elsewhere(bare.server, LARGE):
        async with Kubelets(bare, namespace=SMALL) as kubelets:
            with Operator(where.kubeconfig, where.directory) as operator:
                await settled(operator, where.runs)
                made = kubelets.first["PyTorchJob"]
                quiet = await _answer_seconds(bare)
                alone = await _recovered(where, "alone", made)
                where.say(f"alone: {alone:.2f} s")
                await evict(bare, [(LARGE, f"{name}-a0-master-0") for name in names])
                beside = await _recovered(where, "beside", made)
                busy = await _answer_seconds(bare)
                there = sum(raw["metadata"]["name"].endswith("-a1") for raw in await bare.list("PyTorchJob", LARGE))
    detail = (
        f"{beside:.1f} s beside {alone:.1f} s alone; {there} of {where.runs} had their next attempt by then; the API "
        f"server answered a bare read in {1000 * busy:.0f} ms beside {1000 * quiet:.0f} ms"
    )
    yield Row.at_most(f"delay by a namespace with {where.runs} evicted runs", beside - alone, 2, "s", detail)


READS = 20


async def _answer_seconds(bare: Bare) -> float:
    """Of one read that has nothing to do with the operator: what the machine itself makes everybody wait."""
    began = time.monotonic()
    for _ in range(READS):
        await bare.call("GET", place("SweepRun", SMALL, "alone"))
    return (time.monotonic() - began) / READS


async def _recovered(where: Place, name: str, made: dict[tuple[str, str], float]) -> float:
    """Seconds from the eviction of a run in the small namespace to its next attempt's PyTorchJob."""
    began = time.monotonic()
    await evict(where.bare, [(SMALL, f"{name}-a0-master-0")])
    await until(lambda: (SMALL, f"{name}-a1") in made, 300 + where.runs)
    return made[SMALL, f"{name}-a1"] - began
