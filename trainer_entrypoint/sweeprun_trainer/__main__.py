"""`python sweeprun.pyz exec -- COMMAND [ARGUMENT]...`, `... install --to DIR` and `... check`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Optional

from .log import say

USAGE = 2


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Exit code of the command, of sweeprun_protocol.exit_codes, or 2 for wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # no argparse: what follows `--` is the user's, to the letter
    # Each imports its own: a zipapp is compiled at every start, and the init container has a tenth of a processor.
    if given[:2] == ["exec", "--"] and len(given) > 2:
        from .execute import execute

        return execute(given[2:], os.environ)
    if given == ["check"]:
        from .execute import execute

        return execute([], os.environ)
    if given[:2] == ["install", "--to"] and len(given) == 3:
        from .install import InstallError, install

        try:
            install(given[2])
        except InstallError as error:
            say(str(error))
            return 1
        return 0
    say("usage: exec -- COMMAND [ARGUMENT]... | install --to DIR | check")
    return USAGE


if __name__ == "__main__":
    sys.exit(main())
