from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from support.control_plane import ControlPlane
from support.faults.campaign import Campaign, Told, campaign
from support.faults.schedule import Schedule
from support.faults.tries import told_until


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
        def met(found: Told) -> bool:
            return bool(found.struck or found.violations)

        return (await told_until(met, lambda: told.one(schedule, **given)))[-1]

    return tell
