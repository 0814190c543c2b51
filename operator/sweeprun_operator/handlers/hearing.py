"""Whether the watches still hear anything, by what comes over their connections.

A healthy API server ends a watch on which nothing happens when it was asked to. Its bookmarks, about one a minute,
count too, but there are none of a kind of which it has seen no change yet. A watch that is answered and then told of
nothing, not even of its end, is dead, and so is one that is never answered; kopf knows neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from yarl import URL


@dataclass(slots=True)
class _Watch:
    alive: float
    """When something came last; at first, when it was first asked for."""
    asked: float
    content: aiohttp.StreamReader | None = None
    heard: int = 0
    unanswered: bool = False
    """The last watch that was asked for has had no good answer yet."""


class Hearing:
    """Fed and asked in the doorbell's thread; `deafest` may be read in any."""

    def __init__(self, plurals: frozenset[str], *, monotonic: Callable[[], float]) -> None:
        self._plurals = plurals
        self._monotonic = monotonic
        self._watches: dict[str, _Watch] = {}
        """By path: a kind in a namespace, or in all."""
        self.refused: int | None = None
        """Status of the last answer about one of them that was none."""

    def asks(self, url: URL) -> None:
        """A request leaves. A list comes before each first watch, so that one which is refused counts as deaf too."""
        if url.name in self._plurals:
            now = self._monotonic()
            watch = self._watches.setdefault(url.path, _Watch(alive=now, asked=now))
            watch.asked = now
            if url.query.get("watch") == "true":
                watch.unanswered = True
            elif "continue" in url.query and not watch.unanswered:
                # thousands of objects take minutes to go through where the processor is busy: the pages of such a list
                # are life, or it would be begun again for ever; not of one that comes after a watch was refused
                watch.alive = now

    def answered(self, url: URL, answer: aiohttp.ClientResponse) -> None:
        watch = self._watches.get(url.path)
        if watch is not None and answer.status >= 400:
            self.refused = answer.status
        if watch is not None and url.query.get("watch") == "true" and answer.status == 200:
            self.look()
            watch.content, watch.heard, watch.unanswered = answer.content, 0, False

    def look(self) -> None:
        """Often enough for what the ages are compared with."""
        now = self._monotonic()
        for watch in tuple(self._watches.values()):
            content = watch.content
            if content is not None and content.total_bytes > watch.heard:
                watch.heard, watch.alive = content.total_bytes, now
            if content is not None and content.is_eof():
                # by the server's own word: where the connection broke, or we closed it, the stream has no end
                watch.content, watch.alive = None, now

    def deafest(self) -> tuple[str, float]:
        """Path and age, in seconds, of the watch that has heard nothing for longest; of no watch: an age of 0."""
        now = self._monotonic()
        ages = [(now - watch.alive, path) for path, watch in tuple(self._watches.items())]
        age, path = max(ages, default=(0.0, ""))
        return path, age

    def unasked(self, since: float) -> frozenset[str]:
        """Kinds of which nothing was asked since then: kopf has not found them on the API server."""
        asked = {URL(path).name for path, watch in tuple(self._watches.items()) if watch.asked >= since}
        return self._plurals - asked
