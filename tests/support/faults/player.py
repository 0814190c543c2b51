"""The rest of the cluster, level-based: Job controller, training-operator, kubelets, garbage collector and the volume.

It looks at what is there (`history.Namespace`) and does what those would do next, on the API server itself and not over
the wire. What is to happen to a run is its scenario's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from support.cluster import Cluster, RefusedError
from support.played import Played
from support.simulated_volume import SimulatedVolume
from sweeprun_operator.cluster.observe import REPLICA_INDEX_LABEL, REPLICA_TYPE_LABEL
from sweeprun_protocol.keys import NUMBER_LABEL, ROLE_ATTEMPT, ROLE_LABEL, ROLE_SURVEY
from sweeprun_protocol.prepare import REQUEST_ENV, PrepareRequest

from .history import Namespace

Raw = dict[str, Any]
GRACE_SECONDS = 0.15
"""From the order to end to the program's end, and from there to the object's."""
GONE = (404, 409, 422)
"""What the player's own writes meet where the object has gone or changed meanwhile: it looks again."""


class Player:
    def __init__(self, namespace: Namespace, cluster: Cluster) -> None:
        self.namespace = namespace
        self.cluster = cluster
        self.played = Played(cluster)
        self.volumes: dict[str, SimulatedVolume] = {}
        """By the UID of the run: each has a directory of its own."""
        self.orphans = True
        """The garbage collector works."""
        self._answered: set[str] = set()
        self._started: set[str] = set()
        self._ends: dict[str, float] = {}

    # -- looking -------------------------------------------------------------------------------------------------------

    def all(self, kind: str) -> list[Raw]:
        return list(self.namespace.objects[kind].values())

    @property
    def run(self) -> Raw | None:
        return self.namespace.objects["SweepRun"].get("run")

    @property
    def status(self) -> Raw:
        found: Raw = (self.run or {}).get("status", {})
        return found

    def condition(self, kind: str) -> Raw:
        return next((one for one in self.status.get("conditions", []) if one["type"] == kind), {})

    def trainers(self, attempt: int | None = None) -> list[Raw]:
        found = [pod for pod in self.all("Pod") if pod["metadata"]["labels"].get(ROLE_LABEL) == ROLE_ATTEMPT]
        return [pod for pod in found if attempt is None or number(pod) == attempt]

    def runs_attempt(self, attempt: int) -> bool:
        """By the status, and with all its pods."""
        current = self.status.get("current", {})
        pods = [pod for pod in self.trainers(attempt) if pod["status"]["phase"] == "Running"]
        return (current.get("attempt"), current.get("state"), len(pods)) == (attempt, "Running", 2)

    def volume(self, uid: str) -> SimulatedVolume:
        return self.volumes.setdefault(uid, SimulatedVolume())

    # -- moving --------------------------------------------------------------------------------------------------------

    async def play(self, scenario: Callable[[], Awaitable[bool]]) -> None:
        """Until the scenario says that it is over."""
        while True:
            self.namespace.changed.clear()
            due = await self._moved()
            if await scenario():
                return
            try:
                await asyncio.wait_for(self.namespace.changed.wait(), due)
            except TimeoutError:
                continue

    async def _moved(self) -> float:
        """Everything that is due now; gives the seconds until the next look."""
        now = asyncio.get_running_loop().time()
        for job in self.all("Job"):
            await self.do(self._answer, job)
        for job in self.all("PyTorchJob"):
            await self.do(self._operate, job)
        await self.do(self._collect, now)
        for pod in self.all("Pod"):
            if "deletionTimestamp" in pod["metadata"]:
                await self.do(self._end, pod, now)
        return 0.05 if self._ends else 0.5

    async def do(self, work: Callable[..., None], *arguments: Any) -> None:
        """In a thread; what has changed meanwhile is looked at again."""
        try:
            await asyncio.to_thread(work, *arguments)
        except RefusedError as refused:
            if refused.code not in GONE:
                raise
        except AssertionError as error:
            if not str(error).startswith(("no Job ", "no PyTorchJob ")):
                raise

    def _answer(self, job: Raw) -> None:
        uid, name = job["metadata"]["uid"], job["metadata"]["name"]
        if uid in self._answered or self.cluster.get("Job", name) is None:
            return
        if any(pod["metadata"]["name"].startswith(f"{name}-") for pod in self.all("Pod")):
            return
        if job["metadata"]["labels"][ROLE_LABEL] == ROLE_SURVEY:
            return  # nothing waits for it: it reads for as long as it is there
        (container,) = job["spec"]["template"]["spec"]["containers"]
        (request,) = [item["value"] for item in container["env"] if item["name"] == REQUEST_ENV]
        decoded = PrepareRequest.decode(request.replace("$$", "$"))
        report = self.volume(decoded.owner.uid).prepare(decoded)
        self._answered.add(uid)
        self.played.answer(name, report)

    def _operate(self, job: Raw) -> None:
        """training-operator: all pods at once; the job ends with its first failed pod or its master's good end."""
        uid, name = job["metadata"]["uid"], job["metadata"]["name"]
        pods = [pod for pod in self.all("Pod") if owner(pod) == uid]
        if uid not in self._started:
            # Names of an earlier job's pods are not free before those are gone.
            if any(pod["metadata"]["name"].startswith(f"{name}-") for pod in self.all("Pod")):
                return
            if self.cluster.get("PyTorchJob", name) is None:
                return
            self._started.add(uid)
            self.played.start_attempt(name)
            return
        if job.get("status", {}).get("conditions", [{}])[-1].get("type") in ("Failed", "Succeeded"):
            for pod in pods:
                if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]:
                    self.cluster.delete("Pod", pod["metadata"]["name"])
            return
        phases = {slot(pod): pod["status"]["phase"] for pod in pods}
        if "Failed" in phases.values():
            self.played.job_status(name, "Failed")
        elif phases.get("master-0") == "Succeeded":
            self.played.job_status(name, "Succeeded")

    def _collect(self, now: float) -> None:
        """The garbage collector: what belongs to nothing goes."""
        runs = {run["metadata"]["uid"] for run in self.all("SweepRun")}
        alive = {one["metadata"]["uid"] for kind in ("Job", "PyTorchJob") for one in self.all(kind)}
        for kind in ("Job", "PyTorchJob"):
            for child in self.all(kind):
                if owner(child) not in runs:
                    self.cluster.delete(kind, child["metadata"]["name"], uid=child["metadata"]["uid"])
        for pod in self.all("Pod"):
            if owner(pod) in alive or "deletionTimestamp" in pod["metadata"]:
                continue
            meta = pod["metadata"]
            helper = meta["labels"].get(ROLE_LABEL) != ROLE_ATTEMPT
            self.cluster.delete("Pod", meta["name"], grace=0 if helper else None, uid=meta["uid"])

    def _end(self, pod: Raw, now: float) -> None:
        """The kubelet: the program gets its grace, then the object goes."""
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        if now < self._ends.setdefault(uid, now + GRACE_SECONDS):
            return
        if pod["status"]["phase"] == "Running":
            self.finish(pod, 143, told=True)
            self._ends[uid] = now + GRACE_SECONDS
        else:
            self._ends.pop(uid)
            self.cluster.delete("Pod", name, grace=0, uid=uid)

    # -- what a scenario does ------------------------------------------------------------------------------------------

    def train(self, attempt: int, steps: int) -> None:
        """All pods of the attempt, if the volume lets them."""
        pods = self.trainers(attempt)
        volume = self.volume(self._run_uid(pods[0]))
        for pod in pods:
            refused = volume.start(epoch(pod), slot(pod), pod["metadata"]["uid"])
            assert refused is None, f"{pod['metadata']['name']} may not start: {refused}"
        volume.train(epoch(pods[0]), steps)

    def finish(self, pod: Raw, code: int, *, told: bool = False) -> None:
        volume = self.volume(self._run_uid(pod))
        volume.end(epoch(pod), slot(pod), pod["metadata"]["uid"], code, told=told)
        self.played.end_pod(pod["metadata"]["name"], code)

    def _run_uid(self, pod: Raw) -> str:
        return str(pod["metadata"]["labels"]["sweeprun.dev/uid"])


def owner(raw: Raw) -> str:
    return str(raw["metadata"]["ownerReferences"][0]["uid"]) if raw["metadata"].get("ownerReferences") else ""


def number(raw: Raw) -> int:
    return int(raw["metadata"]["labels"][NUMBER_LABEL])


def epoch(pod: Raw) -> int:
    return int(pod["metadata"]["annotations"]["sweeprun.dev/epoch"])


def slot(pod: Raw) -> str:
    labels = pod["metadata"]["labels"]
    return f"{labels.get(REPLICA_TYPE_LABEL)}-{labels.get(REPLICA_INDEX_LABEL)}"
