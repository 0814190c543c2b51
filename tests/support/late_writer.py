"""A program for a pod: an example's script whose first attempt stands still in the middle of a save until it is let go.

It is what a frozen node does to a process, at a place that a story can name. `library`: after the fence was looked at,
before the commit. `plain`: before a file gets its name; let go, it damages its newest checkpoint besides, as a program
does that writes again to where it wrote before. Passed as text: `python -c TEXT library --steps 100`.

The entrypoint stands still with it until the late checkpoint is there: otherwise it would end its command before. For
that the pod's containers share their processes: nobody can stop the first process of his own container. The second
attempt does nothing until it is ended: the story looks at what is late before anything newer is saved, or swept away.
"""

import os
import signal
import sys
import time
from pathlib import Path

SAVE = 5
"""The save in which it stands still, counted from 1."""
HELD, GO = "held", "go"
"""Flags in the run directory: it stands still; it may go on."""
DAMAGE = b"damaged by a late writer"


class Hold:
    """Of the first epoch's save number SAVE."""

    def __init__(self):
        self._saves = 0
        self.held = False

    def __enter__(self):
        self._saves += 1
        self.held = self._saves == SAVE and os.environ["SWEEPRUN_EPOCH"] == "1"

    def stand_still(self):
        if self.held:
            os.kill(os.getppid(), signal.SIGSTOP)
            place = Path(os.environ["SWEEPRUN_RUN_DIR"])
            place.joinpath(HELD).touch()
            while not place.joinpath(GO).exists():
                time.sleep(0.05)

    def __exit__(self, *_):
        if self.held:
            os.kill(os.getppid(), signal.SIGCONT)


def library():
    import train

    from sweeprun_trainer import commit

    look, publish, hold = commit.later_claim, commit.Committer._publish, Hold()

    def look_and_wait(*arguments, **named):
        later = look(*arguments, **named)
        hold.stand_still()
        return later

    def publish_late(*arguments, **named):
        with hold:
            publish(*arguments, **named)

    commit.later_claim, commit.Committer._publish = look_and_wait, publish_late
    sys.exit(train.main())


def plain():
    import plain

    save, hold = plain.save, Hold()

    def save_late(training, path, step):
        with hold:
            hold.stand_still()
            save(training, path, step)
            for older in path.parent.glob("*.pt") if hold.held else ():
                if older != path:
                    older.write_bytes(DAMAGE)

    plain.save = save_late
    plain.main()


if __name__ == "__main__":
    if os.environ["SWEEPRUN_EPOCH"] == "2":
        signal.pause()
    sys.path.insert(0, "/opt/sweeprun/examples/digits")
    {"library": library, "plain": plain}[sys.argv.pop(1)]()
