"""Proof that nobody acts on an incomplete run any more. What cannot be looked up is not proved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from sweeprun_operator.core.observation import OwnerState
from sweeprun_protocol.keys import ROLE_ATTEMPT, ROLE_LABEL
from sweeprun_protocol.prepare import Candidate
from sweeprun_protocol.records import Owner

from .fields import labels_of, sub, true_condition, uid_of
from .gateway import Gateway, Raw, RefusedError


async def owner_states(
    gateway: Gateway, candidates: Iterable[Candidate], *, cluster_id: str, idle_seconds: int
) -> dict[str, OwnerState]:
    """For each candidate's run ID, whether its owner is proved to be gone. Raises GatewayError."""
    ordered = tuple(candidates)
    answers = await asyncio.gather(*(_state(gateway, one, cluster_id, idle_seconds) for one in ordered))
    return {candidate.run_id: answer for candidate, answer in zip(ordered, answers, strict=True)}


async def _state(gateway: Gateway, candidate: Candidate, cluster_id: str, idle_seconds: int) -> OwnerState:
    owner = candidate.owner
    if owner is None or owner.cluster != cluster_id:
        return OwnerState.GONE if candidate.idle_seconds >= idle_seconds else OwnerState.ALIVE
    try:
        if not await _has_ended(gateway, owner):
            return OwnerState.ALIVE
        return OwnerState.ENDING if await _has_live_children(gateway, owner) else OwnerState.GONE
    except RefusedError:
        # Another namespace, which this operator may not read.
        return OwnerState.ALIVE


async def _has_ended(gateway: Gateway, owner: Owner) -> bool:
    raw = await gateway.get_run(owner.namespace, owner.name)
    if raw is None or uid_of(raw) != owner.uid:
        return True
    status = sub(raw, "status")
    return any(true_condition(status, kind) is not None for kind in ("Complete", "Failed"))


async def _has_live_children(gateway: Gateway, owner: Owner) -> bool:
    """Asked after the owner was seen to be gone: from then on nobody makes another child."""
    jobs, workloads, pods = await asyncio.gather(
        *(gateway.list_children(kind, owner.namespace, owner.uid) for kind in ("Job", "PyTorchJob", "Pod"))
    )
    return bool(workloads) or any(map(_job_may_act, jobs)) or any(map(_pod_may_act, pods))


def _job_may_act(job: Raw) -> bool:
    status = sub(job, "status")
    return not any(true_condition(status, kind) is not None for kind in ("Complete", "Failed"))


def _pod_may_act(pod: Raw) -> bool:
    """A trainer's pod counts until its object is gone; a helper's claims fence it, so its end is enough."""
    if labels_of(pod).get(ROLE_LABEL) == ROLE_ATTEMPT:
        return True
    return sub(pod, "status").get("phase") not in ("Succeeded", "Failed")
