"""`kubectl_complete-sweeprun`: what kubectl asks for completions of `kubectl sweeprun ...`.

kubectl gives it the words behind the plugin's name, the last one unfinished or empty, and reads a candidate a line and
a last line `:DIRECTIVE` as cobra has it. The candidates are those that bash gets for `sweeprun ...`.
"""

from __future__ import annotations

import os
import subprocess
import sys

NAMES_ONLY, FILES_TOO = 4, 0
"""cobra's ShellCompDirectiveNoFileComp, and its default: the shell completes files where there is no candidate."""


def candidates(words: list[str]) -> list[str]:
    """For the last of `words`. Typer answers by printing and leaving the process, so it has one of its own."""
    asked = {
        "COMP_WORDS": " ".join(["sweeprun", *words]),
        "COMP_CWORD": str(len(words)),
        "_SWEEPRUN_COMPLETE": "complete_bash",
    }
    command = [sys.executable, "-c", "from sweeprun_cli.__main__ import app; app(prog_name='sweeprun')"]
    said = subprocess.run(command, env={**os.environ, **asked}, stdout=subprocess.PIPE, text=True, check=False)
    return said.stdout.split()


def main() -> None:
    found = candidates(sys.argv[1:])
    sys.stdout.write("".join(f"{one}\n" for one in found) + f":{NAMES_ONLY if found else FILES_TOO}\n")


if __name__ == "__main__":
    main()
