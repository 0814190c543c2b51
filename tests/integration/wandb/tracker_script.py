"""An attempt that logs through the library's tracker, without torch: `tracker_script.py ROOT EPOCH FIRST LAST END`.

END is an exit code, or `kill`: SIGKILL once W&B's client has begun to write its rows down.
"""

import os
import signal
import sys
import time
from pathlib import Path

from sweeprun_trainer import tracking


def main() -> None:
    root, epoch, first, last, end = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    directory = f"{root}/wandb/e{epoch}"
    tracker = tracking.begin(leads=True, attempt=epoch - 1, config={"lr": 1}, settings={}, directory=directory)
    for step in range(first, last + 1):
        tracker.log(step, {"loss": 1000.0 * epoch + step})
    if end == "kill":
        while not any(path.stat().st_size > 1000 for path in Path(directory).glob("wandb/*/*.wandb")):
            time.sleep(0.1)
        os.killpg(0, signal.SIGKILL)  # the client's helper too, as a pod's end
    tracker.finish(int(end))


if __name__ == "__main__":
    main()
