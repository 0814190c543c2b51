"""`make faults`: the full set of schedules, or those that are named; prints how many ran and how many diverged.

--shard 2/4 runs the second quarter. --journal FILE notes what was done, and a later call with the same file goes on
from there. SWEEPRUN_FAULTS_COUNT takes that many of the full set instead, chosen by SWEEPRUN_FAULTS_SEED.
--away SECONDS stops the API server in the middle of a run instead, and then etcd too.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

from support.control_plane import ControlPlane, running

from .absences import absences
from .campaign import Campaign, Told, campaign
from .journal import Journal
from .scenarios import SCENARIOS
from .schedule import Schedule
from .selection import Shard, every, several

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


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("schedules", nargs="*", type=Schedule.read, help="such as evicted:kill-after@create-Job#1")
    parser.add_argument("--shard", type=Shard.read, default=Shard(1, 1), help="such as 1/4")
    parser.add_argument("--journal", type=Path, help="what was done is noted here, and not done again")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="schedules that run side by side")
    parser.add_argument("--away", type=float, metavar="SECONDS", help="only: a control plane that is away for so long")
    return parser.parse_args(given)


async def away(plane: ControlPlane, told: Campaign, seconds: float) -> int:
    found = [await told.tell(Schedule(one.name), scenario=one) for one in absences(plane, seconds)]
    for one in found:
        print(one if one.violations else f"{one.schedule}: {one.seconds:.0f} s, {one.lives} processes, no divergence")
    return 1 if any(one.violations for one in found) else 0


async def main(given: argparse.Namespace) -> int:
    seed, count = int(os.environ.get("SWEEPRUN_FAULTS_SEED", "1")), os.environ.get("SWEEPRUN_FAULTS_COUNT")
    journal = Journal(given.journal)
    with running() as plane:
        async with campaign(plane) as told:
            if given.away is not None:
                return await away(plane, told, given.away)
            if not given.schedules and not journal.planned:
                whole = await chosen(told, seed, int(count) if count else None)
                journal.plan([schedule for schedule in whole if given.shard.has(schedule)])
            schedules = given.schedules or journal.left

            def say(one: Told) -> None:
                journal.note(one)
                if one.violations:
                    print(one, flush=True)
                    if given.schedules:
                        print("\n".join(one.trace))
                elif len(journal.done) % 50 == 0:
                    print(journal, flush=True)

            await told.all(schedules, at_once=given.at_once, told=say)
    print(f"{journal} (seed {seed}, shard {given.shard})")
    return 1 if journal.diverged else 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    sys.exit(asyncio.run(main(arguments(sys.argv[1:]))))
