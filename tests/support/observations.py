"""Observations as gather makes them, with one difference each: `make_pod(disruption="EvictionByEvictionAPI")`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from support.manifests import make_run
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_operator.core.observation import (
    Acceptance,
    Claim,
    ContainerState,
    HelperJob,
    JobPhase,
    Observation,
    PodPhase,
    PodState,
    Role,
    Workload,
)
from sweeprun_operator.core.scene import Scene
from sweeprun_protocol.prepare import PrepareReport
from sweeprun_protocol.reasons import Format, Outcome, StartReason
from sweeprun_protocol.records import CheckpointRef

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
CLUSTER = "cluster-1"
DIGEST = "sha256:" + "ab" * 32
RUN_ID = "digits-lr.r.1"
CLAIM = Claim(found=True, access_modes=("ReadWriteMany",))


def seconds_ago(seconds: float, *, now: datetime = NOW) -> datetime:
    return now - timedelta(seconds=seconds)


def make_acceptance(*, problem: str | None = None, transient: bool = False, claim: Claim = CLAIM) -> Acceptance:
    return Acceptance(claim=claim, problem=problem, transient=transient)


def make_observation(run: SweepRun | None = None, *, now: datetime = NOW, **fields: Any) -> Observation:
    return Observation(run=run or make_run(), now=now, cluster_id=CLUSTER, **fields)


def make_trainer(exit_code: int | None = None, **fields: Any) -> ContainerState:
    """The training container: running, or ended with an exit code."""
    return ContainerState(**{"name": "pytorch", "started": True, "exit_code": exit_code, **fields})


def make_pod(slot: str = "worker-0", *, attempt: int = 0, exit_code: int | None = None, **fields: Any) -> PodState:
    """Running on node `node-of-<slot>`; with an exit code it has ended."""
    phases = {None: PodPhase.RUNNING, 0: PodPhase.SUCCEEDED}
    given = {
        "name": f"digits-lr-0-a{attempt}-{slot}",
        "uid": f"uid-a{attempt}-{slot}",
        "attempt": attempt,
        "slot": slot,
        "phase": phases.get(exit_code, PodPhase.FAILED),
        "scheduled": True,
        "node": f"node-of-{slot}",
        "containers": (make_trainer(exit_code),),
        "created": seconds_ago(100),
    }
    return PodState(**{**given, **fields})


def make_workload(*, attempt: int = 0, **fields: Any) -> Workload:
    given = {
        "name": f"digits-lr-0-a{attempt}",
        "uid": f"uid-a{attempt}",
        "attempt": attempt,
        "owned": True,
        "created": seconds_ago(100),
    }
    return Workload(**{**given, **fields})


def make_job(
    number: int = 0, *, role: Role = Role.PREPARE, report: PrepareReport | None = None, **fields: Any
) -> HelperJob:
    letter = str(role)[0]
    given = {
        "name": f"digits-lr-0-{letter}{number}",
        "uid": f"uid-{letter}{number}",
        "role": role,
        "number": number,
        "owned": True,
        "phase": JobPhase.ACTIVE if report is None else JobPhase.SUCCEEDED,
        "report": report,
        "created": seconds_ago(5),
    }
    return HelperJob(**{**given, **fields})


def make_scene(*pods: PodState, **fields: Any) -> Scene:
    """Attempt 0 with a master and a worker that both ran, of which nothing has ended unless `pods` say so."""
    shown = pods or (make_pod("master-0"), make_pod("worker-0"))
    given: dict[str, Any] = {
        "now": NOW,
        "pods": shown,
        "workload": make_workload(),
        "expected": 2,
        "trainer": "pytorch",
        "known_uids": frozenset({"uid-a0-master-0", "uid-a0-worker-0"}),
        "workload_uid": "uid-a0",
        "all_ran": True,
    }
    return Scene(**{**given, **fields})


def make_report(number: int, outcome: Outcome, **fields: Any) -> PrepareReport:
    """As prepare answers; what an outcome needs is filled in."""
    given: dict[str, Any] = {"message": "said by the test"}
    if outcome in (Outcome.FRESH, Outcome.RESTART, Outcome.RESUME, Outcome.COMPLETED):
        given |= {"run_id": RUN_ID, "volume_id": "volume-1", "epoch": number + 1, "config_digest": DIGEST}
    reasons = {
        Outcome.FRESH: StartReason.FIRST_START,
        Outcome.RESTART: StartReason.NOTHING_COMMITTED,
        Outcome.RESUME: StartReason.NEWEST_CHECKPOINT,
    }
    given["reason"] = reasons.get(outcome)
    return PrepareReport(prepare=number, outcome=outcome, **{**given, **fields})


def make_checkpoint(step: int, *, epoch: int = 1) -> CheckpointRef:
    return CheckpointRef(
        step=step, epoch=epoch, path=f"checkpoints/step-{step:09d}.e{epoch}", digest=DIGEST, format=Format.SWEEPRUN
    )


def make_resume(number: int, step: int, **fields: Any) -> PrepareReport:
    return make_report(number, Outcome.RESUME, **{"checkpoint": make_checkpoint(step), "last_step": step, **fields})
