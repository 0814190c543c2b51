"""A volume whose process dies before its k-th changing operation."""

from __future__ import annotations

_CHANGES_NAMES = frozenset({"link", "unlink", "rename", "mkdir", "rmdir"})


class DiedError(BaseException):
    """No handler may survive it: it is the process that ends."""


class Mortality:
    """Observer of a Volume: dies before the `at`-th operation that leaves names behind which no earlier death leaves.

    A death between two writes into a temporary file leaves what the death before the file's link leaves, and so does
    one between the removal of a temporary file and the next link.
    """

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.operations: list[tuple[str, str]] = []
        self._last = ""

    def __call__(self, operation: str, path: str) -> None:
        if operation not in _CHANGES_NAMES or "probe" in path:
            return
        last, self._last = self._last, operation
        if operation == "link" and last == "unlink":
            return
        if len(self.operations) == self.at:
            raise DiedError(f"{operation} {path}")
        self.operations.append((operation, path))
