"""One queue of keys, as client-go's workqueue: a key is worked on by one worker at a time and waits in line once.

Namespaces take turns: a namespace's key waits behind one key of each other namespace, however many those have. And no
namespace has more keys worked on at once than it may, so that others need not wait until one of its passes ends.

Of a namespace's keys those go first whose run waits for its next attempt, so that of many runs that are evicted at once
each is finished soon after it was begun, and not all of them at the end. They cannot keep the others waiting for ever.

A key that is added while it is worked on comes again when that work is done. A delayed key keeps its earliest time;
taking a key drops its delay, since whoever takes it decides anew. Failures back off per key.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

IN_A_ROW = 3
"""Keys of a namespace that may go first before one has its turn that may not."""
FIRST_BACKOFF = 0.25
MOST_BACKOFF = 60.0


class Key(NamedTuple):
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Timer(Protocol):
    def cancel(self) -> None: ...

    def when(self) -> float: ...


class Timers(Protocol):
    """The part of an event loop that the queue needs."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[Key], None], key: Key, /) -> Timer: ...


class Line:
    """One namespace's keys that wait."""

    def __init__(self) -> None:
        self._first: deque[Key] = deque()
        self._others: deque[Key] = deque()
        self._in_a_row = 0

    def __len__(self) -> int:
        return len(self._first) + len(self._others)

    def append(self, key: Key, *, first: bool) -> None:
        (self._first if first else self._others).append(key)

    def popleft(self) -> Key:
        if self._first and not (self._others and self._in_a_row >= IN_A_ROW):
            self._in_a_row += 1
            return self._first.popleft()
        self._in_a_row = 0
        return self._others.popleft()


class Queue:
    def __init__(
        self, *, jitter: Callable[[], float], timers: Timers | None = None, most_per_namespace: int | None = None
    ) -> None:
        """`jitter` gives numbers from 0 to 1: a delay after a failure is stretched by up to half of itself.
        `most_per_namespace` keys are worked on at once, at most; None: any number."""
        self._jitter = jitter
        self._most_per_namespace = most_per_namespace
        self._timers: Timers = timers if timers is not None else asyncio.get_running_loop()
        self._lines: OrderedDict[str, Line] = OrderedDict()
        self._preferred: set[Key] = set()
        self._dirty: set[Key] = set()
        self._working: set[Key] = set()
        self._delayed: dict[Key, Timer] = {}
        self._failures: dict[Key, int] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait to be taken."""
        return sum(map(len, self._lines.values()))

    def add(self, key: Key) -> None:
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._enqueue(key)

    def add_after(self, key: Key, seconds: float) -> None:
        if seconds <= 0:
            self.add(key)
            return
        pending = self._delayed.get(key)
        if pending is not None:
            if pending.when() <= self._timers.time() + seconds:
                return
            pending.cancel()
        self._delayed[key] = self._timers.call_later(seconds, self._due, key)

    def retry(self, key: Key, *, least: float | None = None) -> float:
        """Come again after this key's next backoff, and not before `least` seconds; gives the delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(MOST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(failures, 32)) * (1 + self._jitter() / 2)
        delay = max(delay, least or 0.0)
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """The key's work went well: its next failure starts a new backoff."""
        self._failures.pop(key, None)

    def prefer(self, key: Key, preferred: bool) -> None:
        """Whether the key goes before others of its namespace from the next time that it is put in line."""
        if preferred:
            self._preferred.add(key)
        else:
            self._preferred.discard(key)

    async def take(self) -> Key:
        """The next key; `done` must follow."""
        while (key := self._next()) is None:
            self._filled.clear()
            await self._filled.wait()
        self._dirty.discard(key)
        self._working.add(key)
        pending = self._delayed.pop(key, None)
        if pending is not None:
            pending.cancel()
        return key

    def done(self, key: Key) -> None:
        self._working.discard(key)
        if key in self._dirty:
            self._enqueue(key)
        self._filled.set()

    def close(self) -> None:
        """Drop all timers; nothing is delivered after this unless it is in the line already."""
        for timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()

    def _due(self, key: Key) -> None:
        self._delayed.pop(key, None)
        self.add(key)

    def _enqueue(self, key: Key) -> None:
        self._lines.setdefault(key.namespace, Line()).append(key, first=key in self._preferred)
        self._filled.set()

    def _next(self) -> Key | None:
        """Of the namespaces that may have one more, of the one whose turn is longest ago; None: there is none."""
        namespace = next(filter(self._may_have_more, self._lines), None)
        if namespace is None:
            return None
        line = self._lines[namespace]
        key = line.popleft()
        if line:
            self._lines.move_to_end(namespace)
        else:
            del self._lines[namespace]
        return key

    def _may_have_more(self, namespace: str) -> bool:
        most = self._most_per_namespace
        return most is None or sum(key.namespace == namespace for key in self._working) < most
