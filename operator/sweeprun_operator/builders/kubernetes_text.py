"""Text as Kubernetes reads it in `env`, `command` and `args`: `$(NAME)` is a reference, `$$` a dollar."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


def literal(text: str) -> str:
    """Text that must arrive as it is."""
    return text.replace("$", "$$")


def expanded(text: str, values: Mapping[str, str]) -> str:
    """Known references replaced by their values, which are not expanded again; others stay Kubernetes' business."""

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        return literal(values[name]) if name in values else match.group(0)

    return _REFERENCE.sub(value_of, text)


def variables(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": literal(value)} for name, value in values.items()]


def field(name: str, path: str) -> dict[str, object]:
    """A variable by the downward API."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
