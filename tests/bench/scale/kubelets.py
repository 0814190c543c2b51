"""What a bare API server lacks, in one task: kubelets, the Job controller, garbage collection, and training-operator
unless the real one runs. Prepare Jobs are answered at once, as by a volume with a checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Self

from support.played import NODE, container_status, now, owned_by
from sweeprun_protocol.keys import NAME_LABEL, NUMBER_LABEL, ROLE_ATTEMPT, ROLE_LABEL
from sweeprun_protocol.layout import step_name
from sweeprun_protocol.prepare import CheckpointRef, PrepareReport
from sweeprun_protocol.reasons import Format, Outcome, StartReason

from .client import AT_ONCE, Bare, Raw, RefusedError, Server

START_SECONDS = 60.0


class Kubelets:
    def __init__(self, bare: Bare, *, makes_pods: bool = True, namespace: str | None = None) -> None:
        """`makes_pods` off: the real training-operator makes the pods of attempts. `namespace`: they serve this one."""
        self._bare = bare
        self._namespace = namespace
        self._makes_pods = makes_pods
        self._line: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._known: set[tuple[str, str]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.first: dict[str, dict[tuple[str, str], float]] = {"Job": {}, "PyTorchJob": {}, "Pod": {}}
        """When each object was first told of, by kind, namespace and name; seconds of the monotonic clock."""
        self.running: dict[tuple[str, str], float] = {}
        """When each attempt's pod was made to run."""

    async def __aenter__(self) -> Self:
        kinds = ("Job", "PyTorchJob", "Pod")
        self._tasks = [asyncio.create_task(self._watch(kind)) for kind in kinds]
        self._tasks += [asyncio.create_task(self._work()) for _ in range(AT_ONCE)]
        await asyncio.sleep(1)  # a watch tells of nothing that was before it
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self, kind: str) -> None:
        async for event, raw in self._bare.watch(kind, self._namespace):
            meta = raw["metadata"]
            if event == "ADDED":
                self.first[kind].setdefault((meta["namespace"], meta["name"]), time.monotonic())
            work = self._due(kind, event, raw)
            if work is not None:
                name, step = work
                if (name, meta["uid"]) not in self._known:
                    self._known.add((name, meta["uid"]))
                    self._line.put_nowait(step)

    def _due(self, kind: str, event: str, raw: Raw) -> tuple[str, Callable[[], Awaitable[None]]] | None:
        if event == "DELETED":
            return ("collect", lambda: self._collect(kind, raw)) if kind != "Pod" else None
        if kind == "Job":
            return "answer", lambda: self._answer(raw)
        if kind == "PyTorchJob":
            return ("start", lambda: self._start(raw)) if self._makes_pods else None
        if raw["metadata"].get("deletionTimestamp"):
            return "end", lambda: self._end(raw)
        if raw["metadata"]["labels"].get(ROLE_LABEL) == ROLE_ATTEMPT and not raw["status"].get("containerStatuses"):
            return "run", lambda: self._run(raw)
        return None

    async def _work(self) -> None:
        while True:
            step = await self._line.get()
            try:
                await step()
            except RefusedError as error:
                if error.code in (429, 500, 503, 504):
                    self._line.put_nowait(step)
                elif error.code not in (404, 409):  # gone meanwhile, or done by an earlier life of ours
                    raise

    async def _answer(self, job: Raw) -> None:
        meta = job["metadata"]
        pod = await self._pod(job, f"{meta['name']}-x", job["spec"]["template"])
        state = {"terminated": {**ended(0), "message": answer(meta).encode().decode()}}
        await self._bare.status(
            "Pod",
            meta["namespace"],
            pod["metadata"]["name"],
            {"phase": "Succeeded", "containerStatuses": [container_status(pod, state)]},
        )

    async def _start(self, job: Raw) -> None:
        for replica, spec in job["spec"]["pytorchReplicaSpecs"].items():
            for index in range(spec.get("replicas", 1)):
                labels = {
                    "training.kubeflow.org/job-name": job["metadata"]["name"],
                    "training.kubeflow.org/replica-type": replica.lower(),
                    "training.kubeflow.org/replica-index": str(index),
                }
                name = f"{job['metadata']['name']}-{replica.lower()}-{index}"
                await self._pod(job, name, spec["template"], labels)

    async def _run(self, pod: Raw) -> None:
        meta = pod["metadata"]
        state = {"running": {"startedAt": now()}}
        status = {
            "phase": "Running",
            "startTime": now(),
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "containerStatuses": [container_status(pod, state)],
        }
        await self._bare.status("Pod", meta["namespace"], meta["name"], status)
        self.running[meta["namespace"], meta["name"]] = time.monotonic()

    async def _end(self, pod: Raw) -> None:
        """SIGTERM, the program ends, the kubelet says so and confirms the deletion."""
        meta = pod["metadata"]
        if pod["status"].get("phase") == "Running":
            state = {"terminated": {**ended(143), "reason": "Error"}}
            status = {"phase": "Failed", "containerStatuses": [container_status(pod, state)]}
            await self._bare.status("Pod", meta["namespace"], meta["name"], status)
        await self._bare.delete("Pod", meta["namespace"], meta["name"])

    async def _collect(self, kind: str, owner: Raw) -> None:
        meta = owner["metadata"]
        selector = f"{ROLE_LABEL}={meta['labels'][ROLE_LABEL]},{NAME_LABEL}={meta['labels'][NAME_LABEL]}"
        for pod in await self._bare.list("Pod", meta["namespace"], labelSelector=selector):
            if any(reference["uid"] == meta["uid"] for reference in pod["metadata"].get("ownerReferences", ())):
                await self._bare.delete("Pod", meta["namespace"], pod["metadata"]["name"])

    async def _pod(self, owner: Raw, name: str, template: Raw, labels: dict[str, str] | None = None) -> Raw:
        meta, given = owner["metadata"], template.get("metadata") or {}
        metadata = {
            "name": name,
            "labels": {**(given.get("labels") or {}), **(labels or {})},
            "annotations": given.get("annotations") or {},
            "ownerReferences": owned_by(owner),
        }
        spec = {key: value for key, value in template["spec"].items() if key != "priorityClassName"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, "nodeName": NODE}}
        return await self._bare.create("Pod", meta["namespace"], body)


@contextlib.contextmanager
def elsewhere(server: Server, namespace: str) -> Iterator[None]:
    """Kubelets of a namespace in a process of their own, so that no others wait for them."""
    spawning = multiprocessing.get_context("spawn")
    ready = spawning.Event()
    process = spawning.Process(target=_play, args=(server, namespace, ready), daemon=True)
    process.start()
    try:
        if not ready.wait(START_SECONDS):
            raise RuntimeError("the simulation does not start")
        yield
        if not process.is_alive():
            raise RuntimeError(f"the simulation ended: exit code {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _play(server: Server, namespace: str, ready: Event) -> None:
    async def play() -> None:
        async with Bare(server) as bare, Kubelets(bare, namespace=namespace):
            ready.set()
            await asyncio.Event().wait()

    asyncio.run(play())


def answer(meta: Raw) -> PrepareReport:
    """A fresh start to the first prepare, a resume to each later one."""
    number, name = int(meta["labels"][NUMBER_LABEL]), meta["labels"][NAME_LABEL]
    first = number == 0
    step = 100 * number
    path = f"checkpoints/{step_name(step, number)}"
    ref = CheckpointRef(step=step, epoch=number, path=path, digest="sha256:" + "ab" * 32, format=Format.SWEEPRUN)
    return PrepareReport(
        prepare=number,
        outcome=Outcome.FRESH if first else Outcome.RESUME,
        reason=StartReason.FIRST_START if first else StartReason.NEWEST_CHECKPOINT,
        message="simulated",
        run_id=f"scale.{name}",
        volume_id="volume",
        epoch=number + 1,
        checkpoint=None if first else ref,
        last_step=None if first else step,
    )


def ended(code: int) -> Raw:
    return {"exitCode": code, "reason": "Completed", "startedAt": now(), "finishedAt": now()}
