from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from support.control_plane import ControlPlane
from support.faults.campaign import Campaign, Told, campaign
from support.faults.schedule import Schedule

TRIES = 3


@pytest.fixture
async def told(control_plane: ControlPlane) -> AsyncIterator[Campaign]:
    """Runs schedules of faults against the session's control plane."""
    async with campaign(control_plane) as made:
        yield made


@pytest.fixture
def struck(told: Campaign) -> Callable[..., Awaitable[Told]]:
    """Tells a schedule again whose fault met no request: on a busy machine passes fall together, and the request of
    some ordinal is never made."""

    async def tell(schedule: Schedule, **given: Any) -> Told:
        found = await told.one(schedule, **given)
        for _ in range(TRIES - 1):
            if found.struck or found.violations:
                break
            found = await told.one(schedule, **given)
        return found

    return tell
