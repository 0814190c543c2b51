"""Has a later epoch been claimed? Asked by the entrypoint while training runs, and by the library before a commit."""

from __future__ import annotations

from typing import Optional

from sweeprun_protocol.layout import RunLayout

from .claims import highest_epoch
from .operations import Volume


def later_claim(volume: Volume, layout: RunLayout, *, epoch: int) -> Optional[int]:
    """The epoch of a later claim, or None. Raises VolumeError where the volume does not answer."""
    head = highest_epoch(volume, layout, at_least=epoch)
    return head if head > epoch else None
