"""`python -m support.exactness --runs 200 [--seed 1] [--journal FILE]`, from the folder tests."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from .campaign import STEPS, Campaign


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the others follow")
    parser.add_argument("--journal", type=Path, help="what was done, line by line; a later call goes on behind it")
    options = parser.parse_args()
    done = [json.loads(line) for line in _lines(options.journal)]
    known = {line["seed"] for line in done}
    with tempfile.TemporaryDirectory(prefix="sweeprun-exactness-", ignore_cleanup_errors=True) as place:
        campaign = Campaign(Path(place))
        for seed in range(options.seed, options.seed + options.runs):
            if seed in known:
                continue
            began = time.monotonic()
            line = {**campaign.run(seed).line(), "seconds": round(time.monotonic() - began, 1)}
            done.append(line)
            if options.journal is not None:
                with options.journal.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            told = line["divergence"] or f"the same after {len(line['kills'])} kills"
            print(f"seed {seed} {' '.join(str(part) for part in line['kind'].values())}: {told}", flush=True)
    kills = Counter(kill["how"] for line in done for kill in line["kills"])
    last = sum(line["resumed"].count(STEPS) for line in done)
    diverged = [line["seed"] for line in done if line["divergence"]]
    print(*(f"{how}: {count}" for how, count in sorted(kills.items())), sep="\n")
    print(
        f"{len(done)} runs, {kills.total()} kills, {last} resumed at the last step, {len(diverged)} divergences",
        *diverged,
    )
    return 1 if diverged else 0


def _lines(journal: Path | None) -> list[str]:
    return journal.read_text().splitlines() if journal is not None and journal.exists() else []


if __name__ == "__main__":
    sys.exit(main())
