"""What can be told from a container's command line without running it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from itertools import pairwise

SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "zsh", "busybox"})

_AGENT_IN_LINE = re.compile(r"(?:^|[\s;&|(])(?:[^\s;&|(]*/)?wandb(?:\s+-\S+)*\s+agent(?=[\s;&|)]|$)")
_RESTARTS = re.compile(r"(?:^|\s)--max[-_]restarts(?:=|\s+)[\"']?[1-9]")
_SHORT_OPTIONS = re.compile(r"-[a-zA-Z]*c")
_TAKES_A_VALUE = re.compile(r"[-+][a-zA-Z]*o|--rcfile|--init-file")
"""`bash -euo pipefail -c LINE`."""


def shell_line(words: Sequence[str]) -> str | None:
    """The line of `bash -c LINE` (also -lc, -ec, also behind `env` or `tini --`); None where no shell reads one.

    Arguments appended to such a command become $0, $1, ... of the line and reach no program.
    """
    for index, word in enumerate(words):
        if posixpath.basename(word) not in SHELLS:
            continue
        value_of = -1
        for position in range(index + 1, len(words) - 1):
            if position == value_of:
                continue
            if _TAKES_A_VALUE.fullmatch(words[position]):
                value_of = position + 1
                continue
            if _SHORT_OPTIONS.fullmatch(words[position]):
                return words[position + 1]
            if not words[position].startswith(("-", "+")) and words[position] not in SHELLS:
                break
    return None


def restarts_ranks(words: Sequence[str]) -> bool:
    """torchrun's and accelerate's --max-restarts, in a shell line too; it outweighs PET_MAX_RESTARTS."""
    return _RESTARTS.search(" ".join(words)) is not None


def runs_wandb_agent(words: Sequence[str]) -> bool:
    """`wandb agent`, `python -m wandb agent`, or either of them in a shell line."""
    line = shell_line(words)
    if line is not None:
        return _AGENT_IN_LINE.search(line) is not None
    plain = [word for word in words if not word.startswith("-")]
    return any(posixpath.basename(first) == "wandb" and second == "agent" for first, second in pairwise(plain))
