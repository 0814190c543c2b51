"""Every metric of the operator: what /metrics serves, docs/metrics.md lists, and alerts and dashboards may ask for.

Label values are words of closed sets, given here: no run, sweep, node or namespace name is ever one, so that the number
of series depends on nothing that users make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sweeprun_protocol.reasons import Outcome, RefusalReason, StartReason

from .api.status import Cause, Kind, PhaseSeconds
from .core.classify import KINDS
from .core.lifecycle import PHASES

PREFIX = "sweeprun_"
RECOVERY_BUCKETS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
PASS_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

Words = tuple[str, ...]


class Type(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class ResumeResult(StrEnum):
    """How an attempt that went on from a checkpoint ended, by the steps that were seen of it."""

    GOT_FURTHER = "GotFurther"
    """Complete, or seen at a later step than its checkpoint's."""
    DISRUPTED = "Disrupted"
    """Interrupted or asked to stop before that: it says nothing of the checkpoint."""
    FAILED = "Failed"
    """Failed, or never started, before that."""


class PassError(StrEnum):
    """What ended a pass over a run."""

    NOT_FOUND = "NotFoundError"
    CONFLICT = "ConflictError"
    ALREADY_EXISTS = "AlreadyExistsError"
    REFUSED = "RefusedError"
    GATEWAY = "GatewayError"
    """The API server gave no answer that means something."""
    BUG = "Bug"
    """Anything else; the log has its traceback."""


class End(StrEnum):
    """Why the watches ended though nobody told them to."""

    DEAF = "Deaf"
    """One of them heard nothing any more."""
    KIND_UNKNOWN = "KindUnknown"
    EXPIRED = "Expired"
    """410 to a watch or to a continued list."""
    UNAUTHORIZED = "Unauthorized"
    FORBIDDEN = "Forbidden"
    SERVER_ERROR = "ServerError"
    REFUSED = "Refused"
    """Any other answer."""
    UNREACHABLE = "Unreachable"
    OTHER = "Other"
    """An ERROR event in a stream, or a bug."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    name: str
    """Without the prefix, and without the `_total` of counters."""
    type: Type
    help: str
    labels: Mapping[str, Words] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()
    starts: tuple[Words, ...] = ()
    """Combinations that are 0 from the beginning: an increase from nothing to 1 would else not be seen as one."""

    @property
    def full_name(self) -> str:
        return f"{PREFIX}{self.name}{'_total' if self.type is Type.COUNTER else ''}"


def words(kind: type[StrEnum] | type[Outcome] | type[StartReason] | type[RefusalReason]) -> Words:
    return tuple(str(one) for one in kind)


def _each(values: Words) -> tuple[Words, ...]:
    return tuple((value,) for value in values)


_STARTS = {
    Outcome.FRESH: (StartReason.FIRST_START, StartReason.ALL_REFUSED),
    Outcome.RESTART: (StartReason.NOTHING_COMMITTED, StartReason.RESUME_NEVER, StartReason.ALL_REFUSED),
    Outcome.RESUME: (StartReason.NEWEST_CHECKPOINT, StartReason.WALKED_BACK, StartReason.REQUESTED_STEP),
}
_OUTCOMES = tuple(str(outcome) for outcome in _STARTS)
_CAUSES = words(Cause)
_REFUSALS = words(RefusalReason)
_RESULTS = words(ResumeResult)
_FINISHED = ("Complete", "Failed")

CATALOGUE = (
    Metric(
        name="attempts",
        type=Type.COUNTER,
        help="Attempts that were begun, by what prepare decided and why",
        labels={"outcome": _OUTCOMES, "reason": words(StartReason)},
        starts=tuple((str(outcome), str(reason)) for outcome, reasons in _STARTS.items() for reason in reasons),
    ),
    Metric(
        name="attempts_ended",
        type=Type.COUNTER,
        help="Attempts that ended, by cause and by what the cause counts as",
        labels={"cause": _CAUSES, "kind": words(Kind)},
        starts=tuple((str(cause), str(kind)) for cause, kind in KINDS.items()),
    ),
    Metric(
        name="resumes_ended",
        type=Type.COUNTER,
        help="Attempts that went on from a checkpoint and ended: whether they got beyond its step",
        labels={"result": _RESULTS},
        starts=_each(_RESULTS),
    ),
    Metric(
        name="fresh_starts",
        type=Type.COUNTER,
        help="New run IDs after the first one, by reason",
        labels={"reason": words(StartReason)},
        starts=_each((str(StartReason.ALL_REFUSED),)),
    ),
    Metric(
        name="checkpoints_refused",
        type=Type.COUNTER,
        help="Checkpoints that prepare refused, by reason; at most five per prepare are told",
        labels={"reason": _REFUSALS},
        starts=_each(_REFUSALS),
    ),
    Metric(name="steps_kept", type=Type.COUNTER, help="Training steps that resumed attempts did not have to repeat"),
    Metric(name="steps_repeated", type=Type.COUNTER, help="Training steps that had to be repeated after interruptions"),
    Metric(
        name="gpu_seconds_kept",
        type=Type.COUNTER,
        help="GPU time in the checkpoints that attempts resumed from, seconds",
    ),
    Metric(
        name="running_seconds",
        type=Type.COUNTER,
        help="Time in which all pods of an attempt ran, seconds; counted when the attempt ends",
    ),
    Metric(
        name="runs_finished",
        type=Type.COUNTER,
        help="Runs that ended, by result",
        labels={"result": _FINISHED},
        starts=_each(_FINISHED),
    ),
    Metric(
        name="recovery_seconds",
        type=Type.HISTOGRAM,
        help="Recovery from an interruption, phase by phase, by its cause; validation is a part of prepare",
        labels={"phase": tuple(PhaseSeconds.model_fields), "cause": _CAUSES},
        buckets=RECOVERY_BUCKETS,
    ),
    Metric(
        name="runs",
        type=Type.GAUGE,
        help="Runs by phase, as kubectl get shows it; 0 in a process that does not hold the Lease",
        labels={"phase": PHASES},
        starts=_each(PHASES),
    ),
    Metric(name="reconcile_seconds", type=Type.HISTOGRAM, help="One pass over one run, seconds", buckets=PASS_BUCKETS),
    Metric(
        name="reconcile_errors",
        type=Type.COUNTER,
        help="Passes that failed and are repeated, by kind of error",
        labels={"error": words(PassError)},
        starts=_each(words(PassError)),
    ),
    Metric(
        name="watches_ended",
        type=Type.COUNTER,
        help="Times that all watches ended and were started again, by reason",
        labels={"reason": words(End)},
        starts=_each(words(End)),
    ),
    Metric(
        name="last_resync_timestamp_seconds",
        type=Type.GAUGE,
        help="Time of the last complete list of runs, seconds since 1970; 0: none yet",
    ),
    Metric(name="leading", type=Type.GAUGE, help="1 while this process holds the Lease"),
    Metric(name="queue_length", type=Type.GAUGE, help="Runs that wait to be worked on"),
    Metric(name="prepares", type=Type.GAUGE, help="Runs that hold one of the bounded number of prepare slots"),
    Metric(name="prepares_waiting", type=Type.GAUGE, help="Runs whose prepare waits for a slot"),
)
