"""What Prometheus sees. Everything about runs comes from the step from one written status to the next, so that a
pass that is repeated counts once. Labels are words of closed sets: no run, sweep or node name is ever one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sweeprun_protocol.reasons import Outcome

from .api.status import Attempt, ConditionType, PhaseSeconds, SweepRunStatus

RECOVERY_BUCKETS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
PASS_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing that happened: added to the metric `name`, observed where that is a histogram."""

    name: str
    value: float = 1.0
    labels: tuple[str, ...] = ()


def samples(before: SweepRunStatus, after: SweepRunStatus) -> Iterator[Sample]:
    """What happened between two statuses of one run."""
    known = {attempt.attempt: attempt for attempt in before.history}
    causes = {attempt.attempt: attempt.cause for attempt in after.history}
    for attempt in after.history:
        earlier = known.get(attempt.attempt)
        if earlier is None:
            yield from _began(attempt)
        if attempt.cause is not None and (earlier is None or earlier.cause is None):
            yield Sample("attempts_ended", labels=(str(attempt.cause), str(attempt.kind)))
        interruption = causes.get(attempt.attempt - 1)
        if interruption is not None:
            yield from _phases(earlier.seconds if earlier else PhaseSeconds(), attempt.seconds, str(interruption))
    for name in ("steps_kept", "steps_repeated", "gpu_seconds_kept"):
        grown = getattr(after.savings, name) - getattr(before.savings, name)
        if grown > 0:
            yield Sample(name, float(grown))
    for condition in (ConditionType.COMPLETE, ConditionType.FAILED):
        if after.is_true(condition) and not before.is_true(condition):
            yield Sample("runs_finished", labels=(str(condition),))


def _began(attempt: Attempt) -> Iterator[Sample]:
    yield Sample("attempts", labels=(str(attempt.outcome),))
    if attempt.outcome is Outcome.FRESH and attempt.attempt > 0:
        yield Sample("fresh_starts", labels=(str(attempt.reason),))
    for refused in attempt.refused:
        yield Sample("checkpoints_refused", labels=(str(refused.reason),))


def _phases(before: PhaseSeconds, after: PhaseSeconds, cause: str) -> Iterator[Sample]:
    for phase in PhaseSeconds.model_fields:
        seconds = getattr(after, phase)
        if seconds is not None and getattr(before, phase) is None:
            yield Sample("recovery_seconds", seconds, (phase, cause))


class Metrics:
    def __init__(
        self, *, queue_length: Callable[[], int], prepares: Callable[[], int], prepares_waiting: Callable[[], int]
    ) -> None:
        self.registry = CollectorRegistry()
        self._counters = {
            "attempts": self._counter("attempts", "Attempts that were begun, by what prepare decided", "outcome"),
            "attempts_ended": self._counter("attempts_ended", "Attempts that ended, by cause", "cause", "kind"),
            "fresh_starts": self._counter("fresh_starts", "New run IDs after the first one, by reason", "reason"),
            "checkpoints_refused": self._counter("checkpoints_refused", "Checkpoints that were refused", "reason"),
            "steps_kept": self._counter("steps_kept", "Steps that resumed attempts did not have to repeat"),
            "steps_repeated": self._counter("steps_repeated", "Steps that had to be repeated after interruptions"),
            "gpu_seconds_kept": self._counter("gpu_seconds_kept", "GPU time that resumed attempts kept, seconds"),
            "runs_finished": self._counter("runs_finished", "Runs that ended", "result"),
        }
        self._recovery = Histogram(
            "sweeprun_recovery_seconds",
            "Recovery from an interruption, phase by phase",
            ("phase", "cause"),
            buckets=RECOVERY_BUCKETS,
            registry=self.registry,
        )
        self._passes = Histogram(
            "sweeprun_reconcile_seconds", "One pass over one run", buckets=PASS_BUCKETS, registry=self.registry
        )
        self._errors = self._counter("reconcile_errors", "Passes that failed, by kind of error", "error")
        self._watches = self._counter(
            "watches_ended", "Times that all watches ended and were started again, by reason", "reason"
        )
        self._resynced = Gauge(
            "sweeprun_last_resync_timestamp_seconds", "Last complete list of runs", registry=self.registry
        )
        self._leading = Gauge("sweeprun_leading", "1 while this process holds the Lease", registry=self.registry)
        self._gauge("queue_length", "Runs that wait to be worked on", queue_length)
        self._gauge("prepares", "Runs that hold one of the bounded number of prepare slots", prepares)
        self._gauge("prepares_waiting", "Runs whose prepare waits for a slot", prepares_waiting)

    def _gauge(self, name: str, documentation: str, value: Callable[[], int]) -> None:
        Gauge(f"sweeprun_{name}", documentation, registry=self.registry).set_function(value)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"sweeprun_{name}", documentation, labels, registry=self.registry)

    def told(self, before: SweepRunStatus, after: SweepRunStatus) -> None:
        """A status was written."""
        for sample in samples(before, after):
            if sample.name == "recovery_seconds":
                self._recovery.labels(*sample.labels).observe(sample.value)
            else:
                counter = self._counters[sample.name]
                (counter.labels(*sample.labels) if sample.labels else counter).inc(sample.value)

    def passed(self, seconds: float, error: str) -> None:
        """A pass ended; `error` is the class of what it raised, or empty."""
        self._passes.observe(seconds)
        if error:
            self._errors.labels(error).inc()

    def resynced(self) -> None:
        self._resynced.set_to_current_time()

    def watches_ended(self, reason: str) -> None:
        """Called in any thread."""
        self._watches.labels(reason).inc()

    def leading(self, is_leading: bool) -> None:
        self._leading.set(int(is_leading))
