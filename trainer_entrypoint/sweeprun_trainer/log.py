"""Our own lines, few and told apart from the program's: on stderr, each beginning with `sweeprun: `."""

from __future__ import annotations

import contextlib
import os
import sys

_STDERR = 2


def say(message: str) -> None:
    """One line. A stderr that nobody reads any more must not end training, nor change its exit code.

    Past the interpreter's buffer: what is left in it after a failed write fails again at the end, which makes 120 of
    every exit code.
    """
    if sys.stderr is None:  # closed before we began: 2 may be the number of a file by now
        return
    line = " ".join(message.splitlines())
    with contextlib.suppress(OSError):
        os.write(_STDERR, f"sweeprun: {line}\n".encode("utf-8", "backslashreplace"))
