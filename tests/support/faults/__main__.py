"""`make faults`: the full set of schedules, or those that are named; prints how many ran and how many diverged.

SWEEPRUN_FAULTS_COUNT takes that many of the full set instead, chosen by SWEEPRUN_FAULTS_SEED.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from random import Random

from support.control_plane import running

from .campaign import Campaign, Told, campaign
from .scenarios import SCENARIOS
from .schedule import Schedule
from .selection import every, several

AT_ONCE = 4
SEVERAL = 200
"""Schedules of several faults in the full set."""


async def chosen(told: Campaign, seed: int, count: int | None) -> list[Schedule]:
    """The full set in an order of the seed's own, or its first part."""
    found: list[Schedule] = []
    usual = await asyncio.gather(*map(told.undisturbed, SCENARIOS))
    for one in usual:
        found += every(one.schedule.scenario, one.counts)
    rng = Random(seed)
    found += several(found, rng, SEVERAL)
    rng.shuffle(found)
    return found[:count]


async def main(names: list[str]) -> int:
    seed, count = int(os.environ.get("SWEEPRUN_FAULTS_SEED", "1")), os.environ.get("SWEEPRUN_FAULTS_COUNT")
    with running() as plane:
        async with campaign(plane) as told:
            named = [Schedule.read(name) for name in names]
            schedules = named or await chosen(told, seed, int(count) if count else None)
            diverged: list[Told] = []
            done = 0

            def say(one: Told) -> None:
                nonlocal done
                done += 1
                if one.violations:
                    diverged.append(one)
                    print(one, flush=True)
                    if named:
                        print("\n".join(one.trace))
                elif done % 50 == 0:
                    print(f"{done} of {len(schedules)}, {len(diverged)} diverged", flush=True)

            await told.all(schedules, at_once=AT_ONCE, told=say)
    print(f"{done} schedules (seed {seed}), {len(diverged)} divergences")
    return 1 if diverged else 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    sys.exit(asyncio.run(main(sys.argv[1:])))
