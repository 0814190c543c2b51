"""`python -m support.damage [SEEDS]`: how much of seeded damage is found, as a table; 1 where anything escaped."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from support.damage.judging import false_alarms, judge_all
from support.damage.samples import write_samples
from support.damage.table import escaped, table


def main(seeds: int) -> int:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "samples").mkdir()
        samples = write_samples(place / "samples").values()
        judged = judge_all(samples, range(seeds), place)
        alarms = false_alarms(samples, seeds, place)
    print(table(judged, alarms, seeds))
    return 1 if escaped(judged) or any(alarms.values()) else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
