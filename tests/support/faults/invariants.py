"""What must hold on every revision that etcd ever had of a run and its children, whatever went wrong meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sweeprun_protocol.keys import NAME_LABEL, NUMBER_LABEL, ROLE_ATTEMPT, ROLE_LABEL, ROLE_SURVEY, UID_LABEL

from .history import Revision
from .wire import Applied

Raw = dict[str, Any]
MONOTONE = ("attempt", "prepare", "epoch")
FINAL = (
    "attempt",
    "epoch",
    "outcome",
    "reason",
    "fromStep",
    "startTime",
    "cause",
    "kind",
    "evidence",
    "node",
    "endTime",
)
STORY = (
    "Started",
    "Resumed",
    "Restarted",
    "FreshStart",
    "Running",
    "Interrupted",
    "Ended",
    "Adopted",
    "ForceDeleted",
    "Completed",
)
"""Reasons of events that tell what became of an attempt; the others may come again, as after a Retry."""
_ENDED = ("Preparing", "Initializing", "Held", "Finished", "Draining")


def violations(revisions: list[Revision], applied: list[Applied], *, late: bool = False) -> list[str]:
    """`late`: a request may have arrived after its process had died. It may then make a child whose time has passed,
    which the volume fences; everything else holds all the same."""
    return [
        *(f"revision {number}: {text}" for number, text in _Reader(late).read(revisions)),
        *_deletes(revisions, applied),
        *_events(applied),
    ]


class _Reader:
    """The cluster as it was, revision by revision."""

    def __init__(self, late: bool) -> None:
        self._late = late
        self._there: dict[str, dict[str, Raw]] = {kind: {} for kind in ("SweepRun", "Job", "PyTorchJob", "Pod")}
        self._made: dict[tuple[str, str], set[str]] = {}

    def read(self, revisions: list[Revision]) -> Iterator[tuple[int, str]]:
        for revision in revisions:
            held = self._there[revision.kind]
            before = held.get(revision.name)
            if revision.type == "DELETED":
                held.pop(revision.name, None)
                continue
            held[revision.name] = revision.raw
            for text in self._look(revision, before):
                yield revision.number, text

    def _look(self, revision: Revision, before: Raw | None) -> Iterator[str]:
        if revision.kind == "SweepRun":
            same = before is not None and before["metadata"]["uid"] == revision.uid
            yield from _status(before.get("status", {}) if same and before else {}, revision.raw.get("status", {}))
        elif revision.type == "ADDED":
            yield from self._child(revision)

    def _child(self, revision: Revision) -> Iterator[str]:
        labels = revision.raw["metadata"].get("labels", {})
        if not any(one.get("controller") for one in revision.raw["metadata"].get("ownerReferences", [])):
            yield f"{revision.kind} {revision.name} has no owner"
            return
        run = self._there["SweepRun"].get(labels.get(NAME_LABEL, ""))
        if run is None or run["metadata"]["uid"] != labels.get(UID_LABEL) or revision.kind == "Pod":
            return  # the garbage collector takes it: nothing of a run that is gone is decided any more
        status, number = run.get("status", {}), int(labels[NUMBER_LABEL])
        if revision.kind == "Job":
            yield from self._job(revision, status, number)
        else:
            yield from self._workload(revision, status, number)

    def _job(self, revision: Revision, status: Raw, number: int) -> Iterator[str]:
        decided = status.get("current", {}).get("prepare", -1)
        if number > decided:
            yield f"{revision.name} was made, but the status has prepare {decided}: its number is not written ahead"
        if revision.raw["metadata"]["labels"][ROLE_LABEL] == ROLE_SURVEY:
            state = status.get("current", {}).get("state")
            if state != "Draining" and not self._late:
                yield f"{revision.name} was made in state {state}: a survey belongs to a drain"
            return
        if number < decided and not self._late:
            yield f"{revision.name} was made, but the status is at prepare {decided}"
        if number == decided:
            yield from self._alone(revision, "a prepare judges an attempt", below=status["counts"]["attempts"])

    def _workload(self, revision: Revision, status: Raw, number: int) -> Iterator[str]:
        current, decided = status.get("current", {}), status.get("counts", {}).get("attempts", 0) - 1
        if number > decided:
            yield f"{revision.name} was made, but the status has decided {decided + 1} attempts: no decision before it"
        if number < decided or current.get("state") not in ("Starting", "Running"):
            if not self._late:
                yield f"{revision.name} was made in state {current.get('state')} of attempt {decided}"
            return
        if [entry["attempt"] for entry in status.get("history", [])][-1:] != [number]:
            yield f"{revision.name} was made, and history has no entry of it"
        yield from self._alone(revision, "an attempt begins", below=number)
        made = self._made.setdefault(
            (revision.kind, f"{revision.raw['metadata']['labels'][UID_LABEL]}/{number}"), set()
        )
        made.add(revision.uid)
        if len(made) > 1:
            yield f"{revision.name} was made twice"

    def _alone(self, revision: Revision, what: str, *, below: int) -> Iterator[str]:
        uid = revision.raw["metadata"]["labels"][UID_LABEL]
        for kind in ("PyTorchJob", "Pod"):
            for name, raw in self._there[kind].items():
                labels = raw["metadata"]["labels"]
                if name == revision.name or labels.get(UID_LABEL) != uid or labels.get(ROLE_LABEL) != ROLE_ATTEMPT:
                    continue
                if self._late and kind == "PyTorchJob":
                    continue
                if int(labels[NUMBER_LABEL]) < below and self._counts(kind, raw):
                    yield f"{revision.name} was made while {kind} {name} was there: {what} when all before is gone"

    def _counts(self, kind: str, raw: Raw) -> bool:
        """Pods that training-operator made of a job that had gone are its own race, which the volume fences."""
        return kind != "Pod" or not self._late


def _status(before: Raw, after: Raw) -> Iterator[str]:
    first, last = before.get("current"), after.get("current")
    if first is not None and last is None:
        yield "the state was lost"
    if first is not None and last is not None:
        for name in MONOTONE:
            if last.get(name, 0) < first.get(name, 0):
                yield f"{name} fell from {first.get(name)} to {last.get(name)}"
        if last["prepare"] - first["prepare"] > 1:
            yield f"prepare rose from {first['prepare']} to {last['prepare']} at once"
    for name, count in before.get("counts", {}).items():
        if after.get("counts", {}).get(name, 0) < count:
            yield f"counts.{name} fell"
    yield from _attempts(before, after)
    yield from _phases(before, after)


def _attempts(before: Raw, after: Raw) -> Iterator[str]:
    counts, old = after.get("counts", {}), before.get("counts", {})
    new = counts.get("attempts", 0) - old.get("attempts", 0)
    history = after.get("history", [])
    if new not in (0, 1):
        yield f"{new} attempts were counted at once"
    if new == 1 and len(history) > 1 and history[-2].get("cause") is None:
        yield f"attempt {history[-1]['attempt']} follows no interruption that is written down"
    if len({entry["attempt"] for entry in history}) != len(history):
        yield "an attempt stands twice in history"
    if len({entry["epoch"] for entry in history}) != len(history):
        yield "two attempts of one epoch"
    if len(history) != min(10, counts.get("attempts", 0)):
        yield f"{counts.get('attempts', 0)} attempts are counted, and history has {len(history)}"
    kinds = [entry.get("kind") for entry in history]
    for field, kind in (("disruptions", "Disruption"), ("failures", "Failure"), ("neverStarted", "NeverStarted")):
        if len(history) < 10 and counts.get(field, 0) != kinds.count(kind):
            yield f"counts.{field} is {counts.get(field, 0)}, and history has {kinds.count(kind)}"
    known = {entry["attempt"]: entry for entry in history}
    for entry in before.get("history", []):
        if entry.get("cause") is None:
            continue
        now = known.get(entry["attempt"], entry)
        changed = [name for name in FINAL if now.get(name) != entry.get(name)]
        if changed:
            yield f"the entry of attempt {entry['attempt']} was closed, and {', '.join(changed)} changed"


def _phases(before: Raw, after: Raw) -> Iterator[str]:
    def is_true(status: Raw, kind: str) -> bool:
        return any(one["type"] == kind and one["status"] == "True" for one in status.get("conditions", []))

    if is_true(before, "Complete") and (not is_true(after, "Complete") or after.get("phase") != "Completed"):
        yield "a run that was complete is no more"
    if is_true(after, "Complete") and is_true(after, "Failed"):
        yield "a run is complete and failed"
    old, new = before.get("current", {}), after.get("current", {})
    same = len(before.get("history", [])) == len(after.get("history", []))
    if same and old.get("state") in _ENDED and new.get("state") in ("Starting", "Running"):
        yield f"attempt {new.get('attempt')} went from {old.get('state')} back to {new.get('state')}"


def _deletes(revisions: list[Revision], applied: list[Applied]) -> Iterator[str]:
    """Whatever the operator deleted had ended, or was to end, by the status at that time."""
    gone = {}
    for revision in revisions:
        if revision.type == "DELETED":
            gone[revision.uid] = revision
    for one in applied:
        if one.verb != "delete" or one.kind not in ("Job", "PyTorchJob"):
            continue
        uid = one.answer.get("details", {}).get("uid") or one.answer.get("metadata", {}).get("uid")
        deleted = gone.get(str(uid))
        if deleted is None:
            continue
        status = _status_at(revisions, deleted)
        current, number = (status or {}).get("current", {}), int(deleted.raw["metadata"]["labels"][NUMBER_LABEL])
        if status is None:
            continue
        if one.kind == "Job":
            wanted = number == current.get("prepare") and current.get("state") in ("Preparing", "Initializing")
            wanted = wanted or number > current.get("prepare", -1)
        else:
            wanted = number >= status.get("counts", {}).get("attempts", 0) or (
                number == current.get("attempt") and current.get("state") in ("Starting", "Running")
            )
        if wanted:
            yield f"revision {deleted.number}: {one.kind} {one.name} was deleted, and the status wants it"


def _events(applied: list[Applied]) -> Iterator[str]:
    """Told twice, it was a change that was made twice."""
    told = set()
    for one in applied:
        if one.kind != "Event" or one.answer["reason"] not in STORY:
            continue
        event = (one.answer["involvedObject"]["uid"], one.answer["reason"], one.answer["message"])
        if event in told:
            yield f"event {event[1]} was told twice: {event[2]}"
        told.add(event)


def _status_at(revisions: list[Revision], deleted: Revision) -> Raw | None:
    """Of the run that owned it; None: that one was gone."""
    found: Raw | None = None
    uid = deleted.raw["metadata"]["labels"][UID_LABEL]
    for revision in revisions:
        if revision.number >= deleted.number:
            break
        if revision.kind == "SweepRun" and revision.uid == uid:
            found = revision.raw.get("status", {}) if revision.type != "DELETED" else None
    return found
