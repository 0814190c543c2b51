"""Which versions of a run and its children somebody has seen, in little memory."""

from __future__ import annotations

from collections.abc import Iterable

from .fields import sub
from .gateway import Raw

Versions = frozenset[int]


def version(raw: Raw) -> int:
    """Of UID and resourceVersion, only for comparison within this process."""
    metadata = sub(raw, "metadata")
    return hash((metadata.get("uid"), metadata.get("resourceVersion")))


def versions(raws: Iterable[Raw]) -> Versions:
    return frozenset(map(version, raws))
