"""What the user wrote, passed on as it is: what is wrong in it is for the API server to say, so nothing may get lost on
the way. An argument that YAML reads as a number, dropped silently, would change the program that is run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


def entries(value: Any, path: str) -> list[Any]:
    """A copy of a list of the template; raises ValueError where it is something else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{path} is no list")  # noqa: TRY004  (the manifest is wrong, not the program)
    return copy.deepcopy(value)


def fields(value: Any, path: str) -> dict[str, Any]:
    """A copy of an object of the template; raises ValueError where it is something else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{path} is no object")  # noqa: TRY004  (the same)
    return copy.deepcopy(dict(value))


def name_in(entry: Any) -> str | None:
    """Of an entry of a list of named objects."""
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return name if isinstance(name, str) else None
