"""A survey: read ahead for the prepare to come, while the pods of the ended attempt still use their grace.

It claims nothing, decides nothing and moves nothing: what it found whole is recorded as a verdict of the epoch that the
next prepare will claim, as if that one had been killed before it decided. Prepare then judges all that is there once
more, a checkpoint saved within the grace included, and reads what no verdict stands for.

Only what is whole is recorded, and only where nothing of it changed while it was read, or a moment before.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field, replace
from typing import Optional

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.prepare import PrepareRequest
from sweeprun_protocol.reasons import Format
from sweeprun_protocol.records import Claim, Decision
from sweeprun_protocol.verdicts import Verdict

from . import completion
from .claims import read_head
from .clock import Clock, Deadline
from .completion import Evidence
from .decisions import read_decision
from .discovery import candidates_of, look_around
from .errors import OutOfTimeError, Stopped, TooManyEntriesError, UnsafeEntryError, VolumeError
from .formats import Checked, Context
from .formats.tree import facts_of
from .identity import Identity, identity_of
from .lineage import Candidate, FileFacts
from .operations import Volume
from .probe import identify, probe_write
from .standings import layout_of
from .validate import look_at
from .verdicts import Journal, Judge

LOOK_SECONDS = 1.0
MOST_LOOK_SECONDS = 5.0
"""Between two looks for a checkpoint that was saved meanwhile: as long as the last look took, within these bounds."""


def survey(volume: Volume, request: PrepareRequest, *, seconds: float, clock: Optional[Clock] = None) -> list[str]:
    """Until the newest checkpoint is whole and no pod is left that could save another; at most `seconds`.

    Returns what was done, as sentences. What goes wrong on the volume ends it, and is prepare's to tell.
    """
    clock = clock or Clock()
    return _Survey(volume, request, clock, Deadline.after(seconds, clock)).run()


@dataclass
class _Survey:
    volume: Volume
    request: PrepareRequest
    clock: Clock
    deadline: Deadline
    said: list[str] = field(default_factory=list)
    judged: dict[tuple[str, str], bool] = field(default_factory=dict)
    """Whether it is whole, by path and identity: another look would find the same."""

    def run(self) -> list[str]:
        try:
            while self._round():
                pass
        except Stopped as stopped:
            self.said.append(stopped.message)
        except OutOfTimeError:
            self.said.append("the time of this survey is up")
        except (VolumeError, OSError, RecordError, UnsafeEntryError, TooManyEntriesError) as error:
            self.said.append(f"given up: {error}")
        return self.said

    def _round(self) -> bool:
        """One look, and a pause. False: nothing is left to look at."""
        began = self.clock.monotonic()
        if began >= self.deadline.end:
            raise OutOfTimeError
        if self.request.run_id is None:
            return self._over("there is no run yet")
        identify(self.volume, known=self.request.volume_id)
        layout = layout_of(self.request, self.request.run_id)
        claim = self._claim(layout)
        decided = read_decision(self.volume, layout, claim.epoch) if claim is not None else None
        if claim is None or decided is None:
            return self._over("no attempt of this prepare is there: another prepare has the run")
        self.volume.look_anew(layout.epoch(claim.epoch))
        evidence = completion.gather(self.volume, layout, decided)
        ended = set(evidence.ends) >= set(decided.slots)
        if completion.is_complete(decided, evidence):
            return self._over("the attempt completed the run: nothing is to be resumed")
        settled = self._look(layout, claim, decided, evidence)
        if settled and ended:
            return self._over("all pods have ended")
        now = self.clock.monotonic()
        pause = min(MOST_LOOK_SECONDS, max(LOOK_SECONDS, now - began))
        self.clock.sleep(max(0.0, min(pause, self.deadline.end - now)))
        return True

    def _over(self, why: str) -> bool:
        self.said.append(why)
        return False

    def _claim(self, layout: RunLayout) -> Optional[Claim]:
        """Of the prepare that let the ending attempt start, while it is the head."""
        self.volume.look_anew(layout.claims)
        head = read_head(self.volume, layout, at_least=self.request.known_epoch)
        ours = head is not None and head.owner.uid == self.request.owner.uid and head.prepare == self.request.prepare
        return head if ours else None

    def _look(self, layout: RunLayout, claim: Claim, decided: Decision, evidence: Evidence) -> bool:
        """Newest first until one is whole. False: something changed a moment ago, and is waited for."""
        epoch = claim.epoch + 1
        inventory = look_around(
            self.volume, layout, self.request, decided=decided, epoch=epoch, last_step=evidence.last_step
        )
        judge = Judge(epoch=epoch, prepare=claim.prepare, level=self.request.level, chosen=self.request.format)
        for candidate in candidates_of(self.volume, layout, self.request, inventory, decided=decided):
            whole = self._judge(layout, judge, candidate)
            if whole is None:
                return False
            if whole:
                break
        return True

    def _judge(self, layout: RunLayout, judge: Judge, candidate: Candidate) -> Optional[bool]:
        """Whether it is whole; None: it changes, or did so a moment ago."""
        place = posixpath.join(layout.directory, candidate.path)
        known = self._known(candidate, identity_of(self.volume, place))
        if known is not None:
            return known
        volume_time = probe_write(self.volume)
        before, facts = identity_of(self.volume, place), facts_of(self.volume, place)
        if before is None or facts is None or before.is_racy(volume_time=volume_time):
            return None
        journal = Journal(self.volume, layout, volume_time=volume_time)
        stands = journal.standing(judge, candidate, facts)
        if stands is not None:
            whole = stands.refusal is None
        else:
            verdict = self._read(layout, journal, judge, candidate, facts)
            after = identity_of(self.volume, place)
            if after is None or after.digest != before.digest:
                return None
            whole = verdict is not None
            if verdict is not None:
                journal.publish(replace(verdict, identity=before.digest))
                self.said.extend(journal.remarks)
        self.judged[candidate.path, before.digest] = whole
        return whole

    def _known(self, candidate: Candidate, identity: Optional[Identity]) -> Optional[bool]:
        return None if identity is None else self.judged.get((candidate.path, identity.digest))

    def _read(
        self, layout: RunLayout, journal: Journal, judge: Judge, candidate: Candidate, facts: FileFacts
    ) -> Optional[Verdict]:
        """None: it is not whole."""
        known = journal.known(candidate, facts) if candidate.format is not Format.SWEEPRUN else None
        run_id = self.request.run_id
        assert run_id is not None, "else there is no layout"
        deadline = Deadline(min(self.deadline.end, self.clock.monotonic() + self.request.timeout_seconds), self.clock)
        resumable_only = judge.chosen is Format.AUTO
        context = Context(self.volume, layout, run_id, judge.level, deadline, resumable_only, known=known)
        began = self.clock.monotonic()
        found = look_at(context, candidate)
        seconds = self.clock.monotonic() - began
        if not isinstance(found, Checked):
            self.said.append(f"{candidate.path} is not whole, and prepare will tell: {found.message}")
            return None
        self.said.append(f"{candidate.path} is whole: {found.bytes} bytes in {seconds:.1f} s")
        return judge.verdict(candidate, facts, found, seconds=seconds, time=self.clock.now(), first=known is None)
