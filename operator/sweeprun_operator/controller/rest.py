"""Which runs are at rest: their last pass found nothing to do, and nobody has changed them or their children since.

A resync that sent every run through a pass would read all of them, one by one, every few minutes; this lets it pass by
those of which a list of versions shows that a pass would read the same again. For the same reason a watch need not ring
for a version that the last pass has read, nor for one that we write ourselves and that no pass has to see, however late
it tells of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sweeprun_operator.cluster.versions import Versions

from .queue import Key

LONGEST_SECONDS = 3600.0
"""What no version tells of, as a node or a claim, is looked at again after this long."""
OVERWRITTEN = 8
"""As many own writes may be made before a watch tells of the first: later it costs a pass."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a pass read, and what we wrote upon it since."""

    versions: Versions
    since: float
    overwritten: tuple[int, ...] = ()

    def written(self, before: int, after: int) -> Found:
        overwritten = (*self.overwritten, before)[-OVERWRITTEN:]
        return replace(self, versions=self.versions - {before} | {after}, overwritten=overwritten)

    def includes(self, version: int) -> bool:
        return version in self.versions or version in self.overwritten


class Rest:
    def __init__(self, *, monotonic: Callable[[], float], wake: Callable[[Key], None]) -> None:
        """`wake` is called with a run that somebody else has changed while we wrote."""
        self._monotonic = monotonic
        self._wake = wake
        self._found: dict[Key, Found] = {}
        self._heard: dict[Key, set[int]] = {}
        """Of runs that are being written: what the watches told meanwhile. They are often faster than the answer."""

    def found(self, key: Key, versions: Versions) -> None:
        """A pass read these versions and had nothing to do."""
        self._found[key] = Found(versions, self._monotonic())

    def disturbed(self, key: Key) -> None:
        """A pass has begun."""
        self._found.pop(key, None)

    @contextmanager
    def writing(self, key: Key, before: int) -> Iterator[Callable[[int], None]]:
        """While we change one object, from one version to another, in a way that no pass has to see: what the block
        gets is called with the version after."""
        heard = self._heard.setdefault(key, set())

        def written(after: int) -> None:
            heard.discard(after)
            found = self._found.get(key)
            if found is not None and before in found.versions:
                self._found[key] = found.written(before, after)

        try:
            yield written
        finally:
            del self._heard[key]
            if any(not self.has_read(key, version) for version in heard):
                self._wake(key)

    def rings(self, key: Key, version: int | None) -> bool:
        """Whether what a watch told asks for a pass now; None: an object is gone."""
        if version is None:
            return True
        if key in self._heard:
            self._heard[key].add(version)
            return False
        return not self.has_read(key, version)

    def has_read(self, key: Key, version: int) -> bool:
        """The run is at rest, and its pass has read this version, or it is one of ours."""
        return key in self._found and self._found[key].includes(version)

    def holds(self, key: Key, versions: Versions) -> bool:
        """The run is at rest, and these are its versions."""
        found = self._found.get(key)
        return found is not None and found.versions == versions and self._monotonic() - found.since < LONGEST_SECONDS
