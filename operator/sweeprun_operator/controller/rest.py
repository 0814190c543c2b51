"""Which runs are at rest: their last pass found nothing to do, and nobody has changed them or their children since.

A resync that sent every run through a pass would read all of them, one by one, every few minutes; this lets it pass by
those of which a list of versions shows that a pass would read the same again. For the same reason a watch need not ring
for a version that the last pass has read.
"""

from __future__ import annotations

from collections.abc import Callable

from sweeprun_operator.cluster.versions import Versions

from .queue import Key

LONGEST_SECONDS = 3600.0
"""What no version tells of, as a node or a claim, is looked at again after this long."""


class Rest:
    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._found: dict[Key, tuple[Versions, float]] = {}

    def found(self, key: Key, versions: Versions) -> None:
        """A pass read these versions and had nothing to do."""
        self._found[key] = (versions, self._monotonic())

    def disturbed(self, key: Key) -> None:
        """A pass has begun."""
        self._found.pop(key, None)

    def written(self, key: Key, before: int, after: int) -> None:
        """We changed one object, from one version to another, in a way that no pass has to see."""
        versions, since = self._found.get(key, (frozenset(), 0.0))
        if before in versions:
            self._found[key] = (versions - {before} | {after}, since)

    def has_read(self, key: Key, version: int) -> bool:
        """The run is at rest, and its pass has read this version."""
        return key in self._found and version in self._found[key][0]

    def holds(self, key: Key, versions: Versions) -> bool:
        """The run is at rest, and these are its versions."""
        found, since = self._found.get(key, (None, 0.0))
        return found == versions and self._monotonic() - since < LONGEST_SECONDS
