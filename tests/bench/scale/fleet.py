"""Many runs in state Running, written straight through the API as copies of one that the operator brought there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass

from support.manifests import make_sweeprun, make_template
from sweeprun_protocol.keys import UID_LABEL

from .client import Bare, Raw, side_by_side
from .kubelets import NODE, Kubelets
from .operator import Operator, settled
from .place import Place

PATTERN = "pattern"
SECONDS = 300.0
_SERVERS_OWN = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "namespace")


@dataclass(frozen=True)
class Pattern:
    """A run that runs, and its children."""

    run: Raw
    children: dict[str, list[Raw]]


async def prepare_namespace(bare: Bare, name: str) -> None:
    await bare.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    path = f"/api/v1/namespaces/{name}/persistentvolumeclaims"
    await bare.call("POST", path, {"metadata": {"name": "sweeps"}, "spec": claim})


async def prepare_cluster(bare: Bare) -> None:
    condition = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "it is simulated"}
    await bare.call("POST", "/api/v1/nodes", {"metadata": {"name": NODE}})
    status = {"conditions": [{**condition, "lastHeartbeatTime": None, "lastTransitionTime": None}]}
    path = f"/api/v1/nodes/{NODE}/status"
    await bare.call("PATCH", path, {"status": status}, content="application/merge-patch+json")


async def make_pattern(where: Place, namespace: str) -> Pattern:
    """One run, of one pod, that the operator and the kubelets bring so far that it runs; neither is at work afterwards,
    so that they do not see copies that are half made."""
    bare = where.bare
    async with Kubelets(bare):
        with Operator(where.kubeconfig, where.directory) as operator:
            await bare.create("SweepRun", namespace, make_sweeprun(PATTERN, template=make_template(workers=0)))
            await until_running(bare, namespace, [PATTERN])
            await settled(operator, 0)
    run = (await bare.list("SweepRun", namespace))[0]
    selector = f"{UID_LABEL}={run['metadata']['uid']}"
    kinds = ("Job", "PyTorchJob", "Pod")
    return Pattern(run, {kind: await bare.list(kind, namespace, labelSelector=selector) for kind in kinds})


async def until_running(bare: Bare, namespace: str, names: Iterable[str], *, attempt: int = 0) -> Raw:
    """The last one looked at."""
    missing, raw = set(names), {}
    async with asyncio.timeout(SECONDS + len(missing)):
        while missing:
            for raw in await bare.list("SweepRun", namespace):
                current = raw.get("status", {}).get("current") or {}
                if current.get("state") == "Running" and current["attempt"] >= attempt:
                    missing.discard(raw["metadata"]["name"])
            if missing:
                await asyncio.sleep(0.5)
    return raw


async def copy(bare: Bare, pattern: Pattern, namespace: str, names: Iterable[str]) -> None:
    async def make(name: str) -> None:
        await _copy_one(bare, pattern, namespace, name)

    await side_by_side(make, names)


async def _copy_one(bare: Bare, pattern: Pattern, namespace: str, name: str) -> None:
    words = {PATTERN: name}
    run = await _put(bare, "SweepRun", namespace, pattern.run, words, status=False)
    words[pattern.run["metadata"]["uid"]] = run["metadata"]["uid"]
    for kind in ("Job", "PyTorchJob", "Pod"):
        for child in sorted(pattern.children[kind], key=lambda raw: str(raw["metadata"]["name"])):
            made = await _put(bare, kind, namespace, child, words, status=True)
            words[child["metadata"]["uid"]] = made["metadata"]["uid"]
    await bare.status("SweepRun", namespace, name, reworded(pattern.run["status"], words))


async def _put(bare: Bare, kind: str, namespace: str, raw: Raw, words: dict[str, str], *, status: bool) -> Raw:
    made = reworded(bare_manifest(raw), words)
    answer = await bare.create(kind, namespace, made)
    if status and raw.get("status"):
        await bare.status(kind, namespace, made["metadata"]["name"], reworded(raw["status"], words))
    return answer


def bare_manifest(raw: Raw) -> Raw:
    """As it was before the server and others added to it, and of no namespace."""
    made: Raw = json.loads(json.dumps({key: value for key, value in raw.items() if key != "status"}))
    made["metadata"] = {key: value for key, value in made["metadata"].items() if key not in _SERVERS_OWN}
    if raw["kind"] == "Job":  # the server makes these of the UID
        del made["spec"]["selector"]
        for label in ("batch.kubernetes.io/controller-uid", "controller-uid"):
            made["metadata"].get("labels", {}).pop(label, None)
            made["spec"]["template"]["metadata"]["labels"].pop(label, None)
    return made


def reworded(raw: Raw, words: dict[str, str]) -> Raw:
    text = json.dumps(raw)
    for old, new in words.items():
        text = text.replace(old, new)
    found: Raw = json.loads(text)
    return found
