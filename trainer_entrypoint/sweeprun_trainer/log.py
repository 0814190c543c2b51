"""Our own lines, few and told apart from the program's: on stderr, each beginning with `sweeprun: `."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """One line. A stderr that nobody reads any more must not end training."""
    try:
        sys.stderr.write(f"sweeprun: {message}\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # closed or broken: there is nowhere left to say so
        return
