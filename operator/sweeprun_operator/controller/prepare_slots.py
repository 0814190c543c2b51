"""How many prepare Jobs run at once, on the cluster and in each namespace: a node that is lost, or a sweep that is
preempted, must not send every run to its volume in the same second.

A run that gets no slot waits before anything of its prepare is written, and is worked on again when it has one. Slots
go to the namespace that holds the fewest, then to the one that waited longest since it last got one. This is memory of
one process: after a restart the prepares that run count as soon as the first pass over their run has seen them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from .queue import Key


class PrepareSlots:
    def __init__(self, *, most: int, most_per_namespace: int, wake: Callable[[Key], None]) -> None:
        """`wake` is called with each run that has waited and now holds a slot."""
        self._most = most
        self._most_per_namespace = most_per_namespace
        self._wake = wake
        self._held: dict[str, set[Key]] = {}
        self._waiting: OrderedDict[str, dict[Key, None]] = OrderedDict()

    @property
    def held(self) -> int:
        return sum(map(len, self._held.values()))

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def take(self, key: Key) -> bool:
        """Whether the run may make its prepare Job now. Else it waits."""
        if key in self._held.get(key.namespace, ()):
            return True
        if self.held < self._most and self._has_room(key.namespace):
            self.occupy(key)
            return True
        self._waiting.setdefault(key.namespace, {})[key] = None
        return False

    def take_free(self, key: Key) -> bool:
        """As take, but a run that gets none does not wait for one."""
        found = self.take(key)
        if not found:
            self._leave_line(key)
        return found

    def occupy(self, key: Key) -> None:
        """The run has a prepare Job that runs: it counts, whatever the bounds say."""
        self._leave_line(key)
        self._held.setdefault(key.namespace, set()).add(key)

    def release(self, key: Key) -> None:
        """The run neither has a prepare Job that runs nor wants one."""
        self._leave_line(key)
        held = self._held.get(key.namespace)
        if held is not None:
            held.discard(key)
            if not held:
                del self._held[key.namespace]
        self._grant()

    def _has_room(self, namespace: str) -> bool:
        return len(self._held.get(namespace, ())) < self._most_per_namespace

    def _leave_line(self, key: Key) -> None:
        line = self._waiting.get(key.namespace)
        if line is not None:
            line.pop(key, None)
            if not line:
                del self._waiting[key.namespace]

    def _grant(self) -> None:
        while self._waiting and self.held < self._most:
            open_to = [namespace for namespace in self._waiting if self._has_room(namespace)]
            if not open_to:
                return
            namespace = min(open_to, key=lambda name: len(self._held.get(name, ())))
            key = next(iter(self._waiting[namespace]))
            self.occupy(key)
            if namespace in self._waiting:
                self._waiting.move_to_end(namespace)
            self._wake(key)
