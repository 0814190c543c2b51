"""What the init container does: bring the entrypoint into a volume that it shares with the training container."""

from __future__ import annotations

import os
import pkgutil
import sys
import tempfile
import zipfile

PROGRAM = "sweeprun.pyz"
TRAMPOLINE = "run.sh"


class InstallError(Exception):
    """The entrypoint could not be brought to where it was wanted; says why."""


def install(directory: str) -> None:
    """Copy the running zipapp and run.sh into `directory`, readable and executable by every user.

    Raises:
        InstallError: not run from a zipapp, or the directory cannot be written.
    """
    program = sys.argv[0]
    if not zipfile.is_zipfile(program):
        raise InstallError(f"{program} is no zipapp: run `python sweeprun.pyz install --to DIR`")
    trampoline = pkgutil.get_data("sweeprun_trainer", TRAMPOLINE)
    assert trampoline is not None, "run.sh is packed beside this module"
    try:
        with open(program, "rb") as source:
            _place(directory, PROGRAM, source.read())
        _place(directory, TRAMPOLINE, trampoline)
    except OSError as error:
        raise InstallError(f"{directory}: {error.strerror}; this process runs as uid {os.getuid()}") from error


def _place(directory: str, name: str, content: bytes) -> None:
    """Whole or not at all: a container that starts again may find what the first try left."""
    descriptor, temporary = tempfile.mkstemp(dir=directory)
    with os.fdopen(descriptor, "wb") as target:
        target.write(content)
        os.fchmod(target.fileno(), 0o755)
    os.replace(temporary, os.path.join(directory, name))
