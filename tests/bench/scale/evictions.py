"""All runs are evicted at once: how long until each has its next attempt, and how near the operator comes to what the
same cluster takes from a client that knows what to write and reads nothing."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from bench.measuring import Row

from .client import Bare, Raw, place, side_by_side
from .fleet import bare_manifest, copy, make_pattern, prepare_namespace, reworded, until_running
from .kubelets import Kubelets
from .operator import Operator, settled
from .place import Place

NAMESPACES = 5
MOST = "10000"


async def measure(where: Place) -> AsyncIterator[Row]:
    bare = where.bare
    spaces = [f"evicted-{number}" for number in range(NAMESPACES)]
    for name in spaces:
        await prepare_namespace(bare, name)
    names = [f"run-{number:05}" for number in range(where.runs // NAMESPACES)]
    pattern = await make_pattern(where, spaces[0])
    for space in spaces:
        await copy(bare, pattern, space, names)
    others = [f"run-{number:05}" for number in range(min(where.runs, BARE_RUNS))]
    await prepare_namespace(bare, BARE_SPACE)
    await copy(bare, pattern, BARE_SPACE, others)
    async with Kubelets(bare) as kubelets:
        # Prepares are answered at once here: the bound on them would be measured, not the operator.
        with Operator(where.kubeconfig, where.directory, prepares=MOST, prepares_per_namespace=MOST) as operator:
            await settled(operator, where.runs + len(others))
            where.say(f"{where.runs} runs are there")
            began, evicted = operator.cost(), time.monotonic()
            times = await evict(bare, [(space, f"{name}-a0-master-0") for space in spaces for name in names])
            took = time.monotonic() - evicted
            where.say(f"evicted within {took:.1f} s")
            made = kubelets.first["PyTorchJob"]
            await until(
                lambda: all((space, f"{name}-a1") in made for space in spaces for name in names), 30 + where.runs
            )
            done = operator.cost()
            for space in spaces:
                await until_running(bare, space, names, attempt=1)
            await settled(operator, 0)
            twice = await _attempts_beyond(bare, spaces)
            written = await _recovery(bare, spaces[0], names[0])
        bare_each = await _bare_writes(bare, others, written) / len(others)
    waits = [made[space, f"{name}-a1"] - times[space, f"{name}-a0-master-0"] for space in spaces for name in names]
    detail = f"p99 {statistics.quantiles(waits, n=100)[98]:.1f} s; evicted within {took:.1f} s"
    yield Row.at_most("eviction to new PyTorchJob, median", statistics.median(waits), 60, "s", detail)
    yield Row.at_most("runs with more than one new attempt", twice, 0, "", f"of {where.runs}")
    each = (max(made[space, f"{name}-a1"] for space in spaces for name in names) - evicted) / where.runs
    share = f"{1000 * each:.1f} ms a run beside {1000 * bare_each:.1f} ms; {STATUSES + 4 + len(written.events)} writes"
    yield Row.at_least("operator beside a client that only writes", bare_each / each, 0.5, "", share)
    cpu = 1000 * (done.cpu - began.cpu) / where.runs
    passes = (done.passes - began.passes) / where.runs
    yield Row.at_most("CPU per recovery", cpu, 50, "ms", f"{passes:.1f} passes")


@dataclass(frozen=True)
class Recovery:
    """What one recovery left on the cluster."""

    name: str
    job: Raw
    workload: Raw
    events: list[Raw]


STATUSES = 4
"""What a recovery writes into a run's status: Draining, Preparing, Starting, Running."""
BARE_RUNS = 200
BARE_SPACE = "evicted-bare"


async def evict(bare: Bare, pods: list[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """When each was told to go, monotonic seconds."""
    times: dict[tuple[str, str], float] = {}

    async def one(pod: tuple[str, str]) -> None:
        times[pod] = time.monotonic()
        await evict_pod(bare, *pod)

    await side_by_side(one, pods, at_once=32)
    return times


async def evict_pod(bare: Bare, namespace: str, name: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    await bare.call("POST", f"{place('Pod', namespace, name)}/eviction", body)


async def until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  many things are looked at
            await asyncio.sleep(0.1)


async def _attempts_beyond(bare: Bare, spaces: list[str]) -> int:
    """Runs with an attempt 2, or with two PyTorchJobs."""
    found = 0
    for space in spaces:
        jobs = Counter(raw["metadata"]["labels"]["sweeprun.dev/name"] for raw in await bare.list("PyTorchJob", space))
        for raw in await bare.list("SweepRun", space):
            found += raw["status"]["counts"]["attempts"] > 2 or jobs[raw["metadata"]["name"]] > 1
    return found


async def _recovery(bare: Bare, namespace: str, name: str) -> Recovery:
    raw = await bare.call("GET", place("SweepRun", namespace, name))
    assert raw["status"]["counts"]["attempts"] == 2, raw["status"]
    job, workload = f"{name}-p1", f"{name}-a1"
    return Recovery(
        name=name,
        job=await bare.call("GET", place("Job", namespace, job)),
        workload=await bare.call("GET", place("PyTorchJob", namespace, workload)),
        events=await bare.list("Event", namespace, fieldSelector=f"involvedObject.name={name}"),
    )


async def _bare_writes(bare: Bare, names: list[str], written: Recovery) -> float:
    """Seconds until runs are evicted and as much is written for each as a recovery writes. The kubelets play along as
    they do beside the operator, with the same pods to end, to make and to run."""
    runs = {raw["metadata"]["name"]: raw for raw in await bare.list("SweepRun", BARE_SPACE)}
    job, workload = bare_manifest(written.job), bare_manifest(written.workload)

    async def recover(name: str) -> None:
        raw, words = runs[name], {written.name: name}
        await evict_pod(bare, BARE_SPACE, f"{name}-a0-master-0")
        path = f"{place('SweepRun', BARE_SPACE, name)}/status"
        for number in range(STATUSES):
            status = {**raw["status"], "counts": {**raw["status"]["counts"], "disruptions": number + 1}}
            raw = await bare.call("PUT", path, {**raw, "status": status})
        await bare.delete("PyTorchJob", BARE_SPACE, f"{name}-a0")
        await bare.create("Job", BARE_SPACE, reworded(job, words))
        await bare.delete("Job", BARE_SPACE, f"{name}-p0")
        await bare.create("PyTorchJob", BARE_SPACE, reworded(workload, words))
        for event in written.events:
            made = bare_manifest(event)
            made["metadata"]["name"] = f"{name}.{event['metadata']['name']}"
            made["involvedObject"] |= {"namespace": BARE_SPACE}
            await bare.create("Event", BARE_SPACE, made)

    began = time.monotonic()
    await side_by_side(recover, names)
    return time.monotonic() - began
