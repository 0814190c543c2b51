from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.control_plane import ControlPlane
from support.faults.campaign import Campaign, campaign


@pytest.fixture
async def told(control_plane: ControlPlane) -> AsyncIterator[Campaign]:
    """Runs schedules of faults against the session's control plane."""
    async with campaign(control_plane) as made:
        yield made
