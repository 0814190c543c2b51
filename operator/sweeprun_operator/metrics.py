"""What Prometheus sees. Everything about runs comes from the step from one written status to the next, so that a
pass that is repeated counts once. What there is to see stands in metric_catalogue.py."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sweeprun_protocol.reasons import Outcome

from .api.status import Attempt, Cause, ConditionType, Kind, PhaseSeconds, SweepRunStatus
from .metric_catalogue import CATALOGUE, PREFIX, Metric, PassError, ResumeResult, Type


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
            yield from _ended(attempt, attempt.cause)
        interruption = causes.get(attempt.attempt - 1)
        if interruption is not None:
            yield from _phases(earlier.seconds if earlier else PhaseSeconds(), attempt.seconds, str(interruption))
    for name in ("steps_kept", "steps_repeated", "gpu_seconds_kept"):
        grown = getattr(after.savings, name) - getattr(before.savings, name)
        if grown > 0:
            yield Sample(name, float(grown))
    if after.running_seconds > before.running_seconds:
        yield Sample("running_seconds", float(after.running_seconds - before.running_seconds))
    for condition in (ConditionType.COMPLETE, ConditionType.FAILED):
        if after.is_true(condition) and not before.is_true(condition):
            yield Sample("runs_finished", labels=(str(condition),))


def _began(attempt: Attempt) -> Iterator[Sample]:
    if attempt.reason is not None:
        yield Sample("attempts", labels=(str(attempt.outcome), str(attempt.reason)))
        if attempt.outcome is Outcome.FRESH and attempt.attempt > 0:
            yield Sample("fresh_starts", labels=(str(attempt.reason),))
    for refused in attempt.refused:
        yield Sample("checkpoints_refused", labels=(str(refused.reason),))


def _ended(attempt: Attempt, cause: Cause) -> Iterator[Sample]:
    yield Sample("attempts_ended", labels=(str(cause), str(attempt.kind)))
    if attempt.outcome is Outcome.RESUME:
        yield Sample("resumes_ended", labels=(str(_result(attempt)),))


def _result(attempt: Attempt) -> ResumeResult:
    further = attempt.to_step is not None and attempt.to_step > (attempt.from_step or 0)
    if further or attempt.kind is Kind.COMPLETION:
        return ResumeResult.GOT_FURTHER
    return ResumeResult.FAILED if attempt.kind in (Kind.FAILURE, Kind.NEVER_STARTED) else ResumeResult.DISRUPTED


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
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._phases: dict[Hashable, str] = {}
        for metric in CATALOGUE:
            self._add(metric)
        self._gauges["queue_length"].set_function(queue_length)
        self._gauges["prepares"].set_function(prepares)
        self._gauges["prepares_waiting"].set_function(prepares_waiting)

    def _add(self, metric: Metric) -> None:
        name, labels = f"{PREFIX}{metric.name}", tuple(metric.labels)
        made: Counter | Gauge | Histogram
        match metric.type:
            case Type.COUNTER:
                made = self._counters[metric.name] = Counter(name, metric.help, labels, registry=self.registry)
            case Type.GAUGE:
                made = self._gauges[metric.name] = Gauge(name, metric.help, labels, registry=self.registry)
            case Type.HISTOGRAM:
                made = self._histograms[metric.name] = Histogram(
                    name, metric.help, labels, buckets=metric.buckets, registry=self.registry
                )
        for values in metric.starts:
            made.labels(*values)

    def told(self, before: SweepRunStatus, after: SweepRunStatus) -> None:
        """A status was written."""
        for sample in samples(before, after):
            if sample.name in self._histograms:
                self._histograms[sample.name].labels(*sample.labels).observe(sample.value)
            else:
                counter = self._counters[sample.name]
                (counter.labels(*sample.labels) if sample.labels else counter).inc(sample.value)

    def stands(self, run: Hashable, phase: str | None) -> None:
        """A pass has read where a run stands; None: it is gone."""
        before = self._phases.pop(run, None)
        if before is not None:
            self._gauges["runs"].labels(before).dec()
        if phase is not None:
            self._phases[run] = phase
            self._gauges["runs"].labels(phase).inc()

    def passed(self, seconds: float, error: str) -> None:
        """A pass ended; `error` is the class of what it raised, or empty."""
        self._histograms["reconcile_seconds"].observe(seconds)
        if error:
            known = error if error in tuple(PassError) else PassError.BUG
            self._counters["reconcile_errors"].labels(str(known)).inc()

    def resynced(self) -> None:
        self._gauges["last_resync_timestamp_seconds"].set_to_current_time()

    def watches_ended(self, reason: str) -> None:
        """Called in any thread."""
        self._counters["watches_ended"].labels(reason).inc()

    def leading(self, is_leading: bool) -> None:
        self._gauges["leading"].set(int(is_leading))
