"""Files of the repository that follow from code: written, or compared with what stands there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def main(texts: Mapping[Path, str], *, program: str, source: str, arguments: Sequence[str] | None = None) -> int:
    """`write|check [--root DIR]`; returns the exit code: 1 where `check` found another text.

    Args:
        texts: by path from the repository's root.
        program: as it is called, for its usage.
        source: what says what the texts are, for the message.
    """
    parser = argparse.ArgumentParser(prog=program, description=f"Files that are what {source}.")
    parser.add_argument("action", choices=("write", "check"))
    parser.add_argument("--root", type=Path, default=Path(), help="the repository; default: the working directory")
    options = parser.parse_args(arguments)
    stale = []
    for path, text in texts.items():
        target = options.root / path
        if target.exists() and target.read_text() == text:
            continue
        if options.action == "write":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        else:
            stale.append(str(path))
    if stale:
        sys.stderr.write(f"not what {source}: {', '.join(stale)}; run `make generate`\n")
    return 1 if stale else 0
