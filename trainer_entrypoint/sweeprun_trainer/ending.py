"""After the command: its end on the volume and in the termination message, and the master's patience."""

from __future__ import annotations

import os
import threading
import time
from typing import Callable, Optional, TypeVar

from sweeprun_protocol.codec import dump
from sweeprun_protocol.records import EndRecord, StartRecord
from sweeprun_volume.records_io import publish_record, read_record

from .log import say
from .settings import DEFAULT_TERMINATION_LOG
from .start import VOLUME_ERRORS, Place

RETRY_SECONDS = 0.5
PEER_POLL_SECONDS = 0.25
MAX_PATIENCE_SECONDS = 30.0
GOOD_END_PATIENCE_SECONDS = 120.0
"""A peer may upload or evaluate longer than rank 0; stopped in it, its good end would count for nothing."""
MIN_PUBLISH_SECONDS = 2.0
MAX_PUBLISH_SECONDS = 15.0

PUBLISHED = ""
TAKEN = "another process has ended in this slot before"

T = TypeVar("T")


def within(seconds: float, action: Callable[[], T]) -> Optional[T]:
    """What the action returns, or None after `seconds`: a network file system may not answer at all, and then the
    thread is left behind."""
    answers: list[T] = []
    worker = threading.Thread(target=lambda: answers.append(action()), name="sweeprun-end", daemon=True)
    try:
        worker.start()
    except RuntimeError:  # no thread left below the container's limit of processes
        return action()
    worker.join(seconds)
    return answers[0] if answers else None


def publish_seconds(grace_seconds: int) -> float:
    return min(max(grace_seconds / 4, MIN_PUBLISH_SECONDS), MAX_PUBLISH_SECONDS)


def patience(record: EndRecord, *, grace_seconds: int, since_told: float) -> float:
    """How long a leader that ended so may wait for its peers' ends.

    A good end has all the time until the pod is told to go. A failure must not delay the recovery. One that was told
    to stop has what is left of the pod's grace, less the time that leaving takes.
    """
    if record.told_to_stop:
        if record.exit_code != 0:
            return 0.0
        return min(grace_seconds / 2, MAX_PATIENCE_SECONDS, grace_seconds - since_told - MIN_PUBLISH_SECONDS)
    if record.exit_code == 0:
        return GOOD_END_PATIENCE_SECONDS
    return min(grace_seconds / 2, MAX_PATIENCE_SECONDS)


def publish_end(place: Place, record: EndRecord, *, seconds: float) -> bool:
    """Publish it, trying again for `seconds`; False: training ended without a record, which completes nothing."""
    end = time.monotonic() + seconds
    pause = threading.Event()

    def publish() -> str:
        problem = _try_to_publish(place, record)
        while problem not in (PUBLISHED, TAKEN) and time.monotonic() + RETRY_SECONDS < end:
            pause.wait(RETRY_SECONDS)
            problem = _try_to_publish(place, record)
        return problem

    problem = within(seconds, publish)
    if problem is None:
        problem = "the volume does not answer"
    if problem != PUBLISHED:
        say(f"the end of {record.slot} could not be recorded: {problem}")
    return problem == PUBLISHED


def _try_to_publish(place: Place, record: EndRecord) -> str:
    """The problem, or PUBLISHED."""
    try:
        won = publish_record(place.volume, place.layout.end(record.epoch, record.slot), record)
    except VOLUME_ERRORS as error:
        return str(error) or type(error).__name__
    return PUBLISHED if won else TAKEN


def write_termination_message(record: EndRecord, path: Optional[str]) -> None:
    """In place: the kubelet's file is a mount of one file. After a failure it stays empty, so that the kubelet fills
    it with the log's tail."""
    if record.exit_code != 0 and not record.told_to_stop:
        return
    if path is None and not os.path.exists(DEFAULT_TERMINATION_LOG):
        return
    try:
        with open(path or DEFAULT_TERMINATION_LOG, "wb") as target:
            target.write(dump(record.to_dict()))
    except OSError as error:
        say(f"the termination message could not be written: {error}")


def is_leader(place: Place) -> bool:
    """The slot whose exit makes training-operator stop the others."""
    leader = "master-0" if "master-0" in place.run.slots else "worker-0"
    return place.pod.slot == leader


def _has_ended(place: Place, slot: str) -> bool:
    """Or will never say so."""
    if place.volume.exists(place.layout.end(place.run.epoch, slot)):
        return True
    start = read_record(place.volume, place.layout.start(place.run.epoch, slot), StartRecord.from_value)
    return start is not None and start.unwrapped


def wait_for_peers(place: Place, *, seconds: float, stop: Callable[[], bool]) -> bool:
    """Until the end record of every slot shows, at most `seconds`, and no longer once `stop()` holds.

    A leader that left at once would turn its peers' good ends into stopped ones.
    """
    pause = threading.Event()
    missing = [slot for slot in place.run.slots if slot != place.pod.slot]
    for _ in range(int(seconds / PEER_POLL_SECONDS) + 1):
        try:
            missing = [slot for slot in missing if not _has_ended(place, slot)]
        except VOLUME_ERRORS as error:
            say(f"the other slots' ends cannot be seen: {error}")
            return False
        if not missing or stop():
            break
        pause.wait(PEER_POLL_SECONDS)
    return not missing
