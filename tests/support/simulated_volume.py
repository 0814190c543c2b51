"""A volume in memory: what prepare decides on it and what the pods of an attempt leave there, in a few rules."""

from __future__ import annotations

from dataclasses import dataclass, field

from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_protocol.prepare import Earlier, PrepareReport, PrepareRequest
from sweeprun_protocol.reasons import Format, Outcome, StartReason
from sweeprun_protocol.records import CheckpointRef

STEPS = 600
"""Where training ends."""
EVERY = 50
"""Steps between two checkpoints."""


@dataclass
class Epoch:
    slots: tuple[str, ...]
    base: int
    prepare: int
    step: int
    started: dict[str, str] = field(default_factory=dict)
    """Pod UID by slot."""
    outcome: Outcome = Outcome.FRESH
    ends: dict[str, tuple[int, bool]] = field(default_factory=dict)
    """Exit code, and whether it had been told to stop."""
    committed: int = 0

    def is_complete(self) -> bool:
        return set(self.ends) == set(self.slots) and all(end == (0, False) for end in self.ends.values())


class SimulatedVolume:
    def __init__(self) -> None:
        self.epochs: list[Epoch] = []
        self.answers: dict[int, PrepareReport] = {}
        """By the number of the prepare: asked again, it says the same."""
        self.said_complete = False

    @property
    def head(self) -> int:
        return len(self.epochs)

    def newest_checkpoint(self) -> int:
        return max((epoch.committed for epoch in self.epochs), default=0)

    def prepare(self, request: PrepareRequest) -> PrepareReport:
        number = request.prepare
        if number not in self.answers:
            self.answers[number] = self._decide(request)
        return self.answers[number]

    def _decide(self, request: PrepareRequest) -> PrepareReport:
        number = request.prepare
        if any(other > number for other in self.answers):
            message, head = "a later prepare was here", max(self.answers)
            return PrepareReport(prepare=number, outcome=Outcome.SUPERSEDED, message=message, head_prepare=head)
        assert request.known_epoch <= self.head, "the operator knows no epoch that was never claimed"
        if self.epochs and self.epochs[-1].is_complete():
            self.said_complete = True
            return PrepareReport(
                prepare=number,
                outcome=Outcome.COMPLETED,
                message="all ended",
                run_id="run",
                step=STEPS,
                earlier=self._earlier(request),
            )
        earlier = self._earlier(request)
        step, last = self.newest_checkpoint(), self.epochs[-1].step if self.epochs else 0
        fresh = not self.epochs
        self.epochs.append(Epoch(slots=request.slots, base=step, prepare=number, step=step))
        outcome, reason = Outcome.RESTART, StartReason.NOTHING_COMMITTED
        if fresh:
            outcome, reason = Outcome.FRESH, StartReason.FIRST_START
        elif step:
            outcome, reason = Outcome.RESUME, StartReason.NEWEST_CHECKPOINT
        self.epochs[-1].outcome = outcome
        path = f"checkpoints/step-{step:09d}.e1"
        return PrepareReport(
            prepare=number,
            outcome=outcome,
            reason=reason,
            message="decided",
            run_id="run",
            volume_id="volume",
            epoch=self.head,
            checkpoint=CheckpointRef(
                step=step, epoch=1, path=path, digest="sha256:" + "ab" * 32, format=Format.SWEEPRUN
            )
            if step
            else None,
            last_step=last,
            earlier=earlier,
        )

    def _earlier(self, request: PrepareRequest) -> Earlier | None:
        if request.started or not self.epochs:
            return None
        outcomes = [epoch.outcome for epoch in self.epochs if epoch.started]
        return Earlier(len(outcomes), outcomes.count(Outcome.RESUME), outcomes.count(Outcome.RESTART))

    # -- what pods do --------------------------------------------------------------------------------------------------

    def start(self, epoch: int, slot: str, uid: str) -> int | None:
        """The start check: an exit code, or None where the pod may train."""
        if epoch != self.head:
            return ExitCode.STALE_EPOCH
        if self.epochs[epoch - 1].started.setdefault(slot, uid) != uid:
            return ExitCode.ATTEMPT_REUSED
        return None

    def train(self, epoch: int, steps: int) -> bool:
        """All ranks go on together; True: training is at its end."""
        assert epoch == self.head, "only the newest epoch trains"
        found = self.epochs[epoch - 1]
        found.step = min(STEPS, found.step + steps)
        if found.step // EVERY > max(found.committed, found.base) // EVERY:
            found.committed = found.step
        return found.step >= STEPS

    def end(self, epoch: int, slot: str, uid: str, code: int, *, told: bool) -> None:
        """Of a pod that had passed its start check; a later claim fences the record off."""
        if epoch <= self.head and self.epochs[epoch - 1].started.get(slot) == uid:
            self.epochs[epoch - 1].ends.setdefault(slot, (code, told))
