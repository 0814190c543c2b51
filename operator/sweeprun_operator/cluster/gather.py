"""Everything that one decision needs to know, read live through the Gateway and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from sweeprun_operator.api.status import ConditionType, State
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_operator.core.observation import (
    Acceptance,
    Claim,
    HelperJob,
    Observation,
    OwnerState,
    PodPhase,
    PodState,
    Refusal,
)

from .departures import Departures
from .fields import condition, sub
from .gateway import AlreadyExistsError, Gateway, GatewayError, NotFoundError, Raw, RefusedError
from .missing_pods import refusal_of_missing
from .observe import attempt_pods, helper_jobs, workloads
from .owners import owner_states
from .versions import Versions, versions

_log = logging.getLogger(__name__)

Proof = Callable[[SweepRun], Raw]
"""The workload as it would be created, for a server-side dry run. Raises ValueError where the spec does not allow one;
the message is for the user."""

NODES_AT_ONCE = 16


class UnreadableRunError(Exception):
    """The stored object is none that this version of the models accepts: it was stored under another CRD."""

    def __init__(self, raw: Raw, message: str) -> None:
        super().__init__(message)
        self.raw = raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    raw: Raw
    """As read: its resourceVersion is the precondition of the status write."""
    observation: Observation
    versions: Versions
    """Of the run and its children, as read."""


async def gather(
    gateway: Gateway,
    *,
    namespace: str,
    name: str,
    now: datetime,
    cluster_id: str,
    proof: Proof,
    departures: Departures,
    refused: Refusal | None = None,
) -> Gathered | None:
    """None: the SweepRun is gone. Raises GatewayError and UnreadableRunError. `refused` is the child that the pass
    before could not make.

    The run is read before its children: a child that is newer than the status shows that this read is stale.
    """
    raw = await gateway.get_run(namespace, name)
    if raw is None:
        return None
    run = _parse(raw)
    uid = run.metadata.uid
    jobs, pytorchjobs, pods = await asyncio.gather(
        gateway.list_children("Job", namespace, uid),
        _pytorchjobs(gateway, run),
        gateway.list_children("Pod", namespace, uid),
    )
    helpers = helper_jobs(jobs, pods, owner_uid=uid)
    trainers = attempt_pods(pods)
    works = workloads(pytorchjobs, owner_uid=uid)
    acceptance, claim, refusal, unready_nodes, owners = await asyncio.gather(
        _acceptance(gateway, run, proof),
        _claim_of_ending(gateway, run, trainers),
        refusal_of_missing(
            gateway,
            run,
            now,
            refused=refused,
            helpers=helpers,
            workloads=works,
            pods=trainers,
            raws=[*jobs, *pytorchjobs],
        ),
        _unready_nodes(gateway, _nodes_in_question(run, trainers)),
        _owners(gateway, run, helpers, cluster_id),
    )
    return Gathered(
        raw=raw,
        versions=versions([raw, *jobs, *pytorchjobs, *pods]),
        observation=Observation(
            run=run,
            now=now,
            cluster_id=cluster_id,
            jobs=helpers,
            workloads=works,
            pods=trainers,
            departed=departures.of(uid, trainers),
            acceptance=acceptance,
            refusal=refusal,
            claim=claim,
            unready_nodes=unready_nodes,
            owners=owners,
        ),
    )


async def _pytorchjobs(gateway: Gateway, run: SweepRun) -> list[Raw]:
    """A cluster that does not know the kind has none, but that is believed only of a run that never had one."""
    try:
        return await gateway.list_children("PyTorchJob", run.metadata.namespace, run.metadata.uid)
    except NotFoundError:
        if run.status.current is not None:
            raise
        return []


def _parse(raw: Raw) -> SweepRun:
    try:
        return SweepRun.from_wire(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnreadableRunError(raw, f"{where}: {first['msg']}"[:512]) from None


def _is_undecided(run: SweepRun) -> bool:
    """Whether this generation has not been accepted yet; what is finished is never judged again."""
    if run.status.current is not None and run.status.current.state is State.FINISHED:
        return False
    accepted = run.status.condition(ConditionType.ACCEPTED)
    settled = accepted is not None and accepted.observed_generation == run.metadata.generation
    return not (settled and run.status.is_true(ConditionType.ACCEPTED))


async def _claim(gateway: Gateway, run: SweepRun) -> Claim:
    name = run.spec.storage.persistent_volume_claim.claim_name
    found = await gateway.get_claim(run.metadata.namespace, name)
    return Claim(found=found is not None, access_modes=_access_modes(found))


async def _claim_of_ending(gateway: Gateway, run: SweepRun, pods: Iterable[PodState]) -> Claim | None:
    """Its access modes tell whether a survey may read beside an attempt that is about to be drained."""
    return await _claim(gateway, run) if _is_running(run) and _is_wrong(pods) else None


async def _acceptance(gateway: Gateway, run: SweepRun, proof: Proof) -> Acceptance | None:
    if not _is_undecided(run):
        return None
    namespace = run.metadata.namespace
    claim = await _claim(gateway, run)
    try:
        await gateway.create("PyTorchJob", namespace, proof(run), dry_run=True)
    except ValueError as error:
        return Acceptance(claim=claim, problem=str(error)[:1024])
    except AlreadyExistsError:
        # Names are compared last: admission and validation have passed.
        return Acceptance(claim=claim, problem=None)
    except RefusedError as error:
        return Acceptance(claim=claim, problem=str(error)[:1024])
    except NotFoundError:
        missing = "the cluster has no PyTorchJob (kubeflow.org/v1): is training-operator installed?"
        return Acceptance(claim=claim, problem=missing, transient=True)
    except GatewayError as error:
        return Acceptance(claim=claim, problem=str(error)[:1024], transient=True)
    return Acceptance(claim=claim, problem=None)


def _access_modes(claim: Raw | None) -> tuple[str, ...]:
    modes = sub(claim, "spec").get("accessModes")
    return tuple(mode for mode in modes if isinstance(mode, str)) if isinstance(modes, list) else ()


def _nodes_in_question(run: SweepRun, pods: Iterable[PodState]) -> frozenset[str]:
    """Nodes matter once something of the attempt has gone wrong: a pod failed or is going, or a drain waits."""
    pods = tuple(pods)
    draining = run.status.current is not None and run.status.current.state is State.DRAINING
    return frozenset(pod.node for pod in pods if pod.node) if draining or _is_wrong(pods) else frozenset()


def _is_running(run: SweepRun) -> bool:
    return run.status.current is not None and run.status.current.state is State.RUNNING


def _is_wrong(pods: Iterable[PodState]) -> bool:
    """A pod failed, was struck, or is going."""
    return any(
        pod.deleting
        or pod.disruption is not None
        or pod.phase in (PodPhase.FAILED, PodPhase.UNKNOWN)
        or any(container.exit_code for container in pod.containers)
        for pod in pods
    )


async def _unready_nodes(gateway: Gateway, names: frozenset[str]) -> frozenset[str]:
    gate = asyncio.Semaphore(NODES_AT_ONCE)

    async def is_unready(name: str) -> bool:
        async with gate:
            try:
                node = await gateway.get_node(name)
            except RefusedError:
                # Nodes are cluster-scoped: an installation may withhold them. A drain then waits without saying why.
                _log.debug("nodes may not be read")
                return False
        if node is None:
            return True
        ready = condition(sub(node, "status"), "Ready")
        return ready is None or ready.get("status") != "True"

    ordered = sorted(names)
    answers = await asyncio.gather(*(is_unready(name) for name in ordered))
    return frozenset(name for name, unready in zip(ordered, answers, strict=True) if unready)


async def _owners(
    gateway: Gateway, run: SweepRun, helpers: Iterable[HelperJob], cluster_id: str
) -> dict[str, OwnerState]:
    current = run.status.current
    if current is None:
        return {}
    reports = [job.report for job in helpers if job.owned and job.number == current.prepare and job.report is not None]
    candidates = {candidate.run_id: candidate for report in reports for candidate in report.candidates}
    return await owner_states(
        gateway,
        candidates.values(),
        cluster_id=cluster_id,
        idle_seconds=run.spec.resume.adoption.idle_seconds,
    )
