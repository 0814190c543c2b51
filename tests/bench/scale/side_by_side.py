"""Beside the real training-operator: how long it takes to make the pods of evicted PyTorchJobs again that restart on
failure, and how long the operator takes on the same API server, which prepares first and makes a new PyTorchJob.

Both times end when the last new pod runs. In the second, the same training-operator makes the pods. It works as it
ships: one thread, 20 requests a second. `unthrottled` is the same comparison with more of both.

The limit is what training-operator takes to start as many new PyTorchJobs for the first time, with nobody beside it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench.measuring import Row
from support.control_plane.programs import Process
from support.manifests import make_sweeprun, make_template
from support.ports import free_port
from sweeprun_protocol.keys import NAME_LABEL, NUMBER_LABEL, ROLE_ATTEMPT, ROLE_LABEL, UID_LABEL

from .client import Bare, Raw, side_by_side
from .evictions import MOST, evict, until
from .fleet import prepare_namespace, until_running
from .kubelets import Kubelets
from .operator import Operator
from .place import Place

THEIRS, OURS = "theirs", "ours"
CERTIFICATES = Path("/tmp/k8s-webhook-server/serving-certs")
"""Where training-operator's own code looks; it waits for what a kubelet would mount there."""
SECRET = "training-operator-webhook-cert"


async def measure(where: Place, *flags: str) -> AsyncIterator[Row]:
    """`flags`: of training-operator."""
    bare = where.bare
    for name in (THEIRS, OURS):
        await prepare_namespace(bare, name)
    names = [f"run-{number:05}" for number in range(where.runs)]
    async with training_operator(where, *flags), Kubelets(bare, makes_pods=False) as kubelets:
        first, theirs = await _theirs(where, kubelets, names)
        where.say(f"training-operator: {first:.1f} s to start, {theirs:.1f} s to restart")
        with Operator(where.kubeconfig, where.directory, prepares=MOST, prepares_per_namespace=MOST):
            ours = await _ours(where, kubelets, names)
        where.say(f"with the operator: {ours:.1f} s")
    detail = f"{ours:.1f} s beside {theirs:.1f} s, from the first eviction to the last of {where.runs} pods"
    yield Row.at_most("prepared recovery beside a plain restart", ours / theirs, 1.5, "", detail)
    detail = f"{first:.1f} s for as many new PyTorchJobs, which a recovery needs too"
    yield Row.at_most("the same beside a plain first start", ours / first, 1.5, "", detail)


async def _theirs(where: Place, kubelets: Kubelets, names: list[str]) -> tuple[float, float]:
    """Seconds until all run for the first time, and from the first eviction until all run again."""

    async def make(name: str) -> None:
        await where.bare.create("PyTorchJob", THEIRS, plain_job(name))

    pods = [(THEIRS, f"{name}-master-0") for name in names]
    began = time.monotonic()
    await side_by_side(make, names)
    first = await _until_all_run(where, kubelets, pods) - began
    return first, await _recovery(where, kubelets, pods, pods)


async def _ours(where: Place, kubelets: Kubelets, names: list[str]) -> float:
    async def make(name: str) -> None:
        await where.bare.create("SweepRun", OURS, make_sweeprun(name, template=make_template(workers=0)))

    await side_by_side(make, names)
    await until_running(where.bare, OURS, names)
    before, after = ([(OURS, f"{name}-a{number}-master-0") for name in names] for number in (0, 1))
    return await _recovery(where, kubelets, before, after)


async def _recovery(
    where: Place, kubelets: Kubelets, before: list[tuple[str, str]], after: list[tuple[str, str]]
) -> float:
    began = min((await evict(where.bare, before)).values())
    return await _until_all_run(where, kubelets, after, since=began) - began


async def _until_all_run(where: Place, kubelets: Kubelets, pods: list[tuple[str, str]], *, since: float = 0.0) -> float:
    """When the last of them began to, which is after `since`; seconds of the monotonic clock."""
    await until(lambda: all(kubelets.running.get(pod, 0.0) > since for pod in pods), 120 + 2.0 * where.runs)
    where.say(f"{len(pods)} pods run")
    return max(kubelets.running[pod] for pod in pods)


def plain_job(name: str) -> Raw:
    """With the labels that the kubelets look for, and no SweepRun."""
    labels = {UID_LABEL: name, NAME_LABEL: name, ROLE_LABEL: ROLE_ATTEMPT, NUMBER_LABEL: "0"}
    job: Raw = copy.deepcopy(make_template(workers=0))
    master = job["spec"]["pytorchReplicaSpecs"]["Master"]
    master["restartPolicy"] = "OnFailure"
    master["template"]["metadata"] = {"labels": labels}
    return {**job, "metadata": {"name": name, "labels": labels}}


@contextlib.asynccontextmanager
async def training_operator(where: Place, *flags: str) -> AsyncIterator[None]:
    """The real one, for PyTorchJobs; admits without its webhook."""
    bare = where.bare
    await bare.call("POST", "/api/v1/namespaces", {"metadata": {"name": "kubeflow"}})
    await bare.call("POST", "/api/v1/namespaces/kubeflow/secrets", {"metadata": {"name": SECRET}})
    hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    await bare.call("POST", hooks, {"metadata": {"name": "validator.training-operator.kubeflow.org"}, "webhooks": []})
    process = Process(
        "training-operator.v1",
        f"--kubeconfig={where.kubeconfig}",
        "--enable-scheme=pytorchjob",
        "--metrics-bind-address=0",
        f"--health-probe-bind-address=127.0.0.1:{free_port()}",
        f"--webhook-server-port={free_port()}",
        "--zap-log-level=error",
        *flags,
        directory=where.directory,
    )
    try:
        await _mount_certificates(bare)
        yield
        process.check()
    finally:
        process.stop()


async def _mount_certificates(bare: Bare) -> None:
    found: dict[str, str] = {}
    while "tls.crt" not in found:
        await asyncio.sleep(0.2)
        secret = await bare.call("GET", f"/api/v1/namespaces/kubeflow/secrets/{SECRET}")
        found = secret.get("data") or {}
    await asyncio.to_thread(_mount, {name: base64.b64decode(text) for name, text in found.items()})


def _mount(files: dict[str, bytes]) -> None:
    CERTIFICATES.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (CERTIFICATES / name).write_bytes(data)
