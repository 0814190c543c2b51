"""Metrics over steps, kept on the volume for `sweeprun report`: a line of JSON for a step, thinned, bounded, by rank 0.

It is for people: it fails open, and neither a full disk nor a volume that does not answer makes a step wait. A thread
of its own writes; what it cannot take at once is left out.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Mapping
from typing import Callable, Optional

from sweeprun_protocol.curve import MAX_ROWS, encode_row

from .log import say

SECONDS = 1.0
"""Between two rows at first."""
ROWS_UNTIL_TWICE = 100
"""After so many rows the pause doubles: 2000 rows last for years, and the first minutes are seen closely."""
WAITING_ROWS = 16
CLOSE_SECONDS = 2.0


class Curve:
    """Of one epoch, in the file `path`, which is made with the first row."""

    def __init__(self, path: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._due: Optional[float] = None
        self._count = 0
        self._rows: queue.Queue[Optional[bytes]] = queue.Queue(WAITING_ROWS)
        self._writer: Optional[threading.Thread] = None

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises nothing, and returns at once."""
        now = self._monotonic()
        if self._count >= MAX_ROWS or (self._due is not None and now < self._due):
            return
        try:
            self._rows.put_nowait(encode_row(step, metrics))
        except queue.Full:
            return
        self._due = now + SECONDS * 2 ** (self._count // ROWS_UNTIL_TWICE)
        self._count += 1
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="sweeprun-curve", daemon=True)
            self._writer.start()

    def close(self) -> None:
        """Waits for what was added, CLOSE_SECONDS at most."""
        if self._writer is None:
            return
        try:
            self._rows.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._writer.join(CLOSE_SECONDS)
        self._writer = None

    def _write(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            row = self._rows.get()
            if row is None:
                return
            try:
                file = os.open(self._path, flags, 0o644)
                try:
                    os.write(file, row)
                finally:
                    os.close(file)
            except OSError as error:
                self._count = MAX_ROWS
                say(f"metrics are not kept for the report: {error}")
                return
