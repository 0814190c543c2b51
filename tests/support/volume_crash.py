"""A volume whose process dies before its k-th changing operation."""

from __future__ import annotations


class DiedError(BaseException):
    """No handler may survive it: it is the process that ends."""


CHANGES_NAMES = frozenset({"link", "unlink", "rename", "mkdir", "rmdir"})
"""A death before any other operation leaves what a death before the next one of these leaves, but for the temporary
file."""


class Mortality:
    """Observer of a Volume: counts operations that change names and dies before the one numbered `at`, from 0."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.operations: list[tuple[str, str]] = []

    def __call__(self, operation: str, path: str) -> None:
        if operation not in CHANGES_NAMES:
            return
        if len(self.operations) == self.at:
            raise DiedError(f"{operation} {path}")
        self.operations.append((operation, path))
