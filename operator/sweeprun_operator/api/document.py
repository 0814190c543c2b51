"""docs/reference/sweeprun.md, made from the models: `python -m sweeprun_operator.api.document write|check`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from . import generated
from .rules import VALIDATIONS
from .spec import SweepRunSpec
from .status import SweepRunStatus
from .structural import Node, structural_schema

DOCUMENT = Path("docs") / "reference" / "sweeprun.md"
EDITS = {"I": "never", "O": "at creation", "A": "next attempt", "L": "now"}
LARGEST = (2_147_483_647, 999_999_999_999)
"""Bounds that only keep a number in its place; not worth a reader's time."""
_MARKER = re.compile(r" ?\[([IOAL])\]")
HEADER = """# SweepRun, field by field

<!-- Generated from operator/sweeprun_operator/api by `make generate`; do not edit. -->

`sweeprun.dev/v1alpha1`, namespaced, short name `srun`, category `sweeps`; `kubectl explain sweeprun.spec`. The name has
at most 44 characters. *edits* says when a change takes effect: never (the API server refuses it), at creation only,
with the next attempt, or now. What is absent and has no default is off or unlimited; 0 never means that.
"""


def document() -> str:
    spec = structural_schema(SweepRunSpec)
    status = structural_schema(SweepRunStatus, defaults=False)
    told = [*_chapters("spec", spec, edits=""), *_chapters("status", status, edits=None)]
    return "\n".join([HEADER, *told])


def _chapters(path: str, node: Node, *, edits: str | None) -> Iterator[str]:
    """One for each object with fields, the outer one first; `edits` None: nobody but the operator writes it."""
    yield f"## `{path}`\n"
    opaque = {"apiVersion", "kind", "metadata"} if path == "spec.template" else set()
    names = ["field", "type", *(["edits"] if edits is not None else []), "meaning"]
    yield f"| {' | '.join(names)} |\n|{'---|' * len(names)}"
    inner = []
    for name, child in node["properties"].items():
        marker = _MARKER.search(child.get("description", ""))
        when = edits if marker is None or edits is None else EDITS[marker.group(1)]
        cells = [f"`{name}`", _type(child), *([when or ""] if edits is not None else []), _meaning(name, child, node)]
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |"
        below, suffix = _below(child)
        if below is not None and name not in opaque:
            inner.append((f"{path}.{name}{suffix}", below, when))
    yield ""
    rules = [f"- {rule['message']}." for rule in node.get(VALIDATIONS, []) if "oldSelf" not in rule["rule"]]
    yield from [*rules, ""] if rules else []
    for where, below, when in inner:
        yield from _chapters(where, below, edits=when)


def _below(child: Node) -> tuple[Node | None, str]:
    """The object with fields that a field holds, directly or in a list; how its path goes on."""
    if "properties" in child:
        return child, ""
    if "properties" in child.get("items", {}):
        return child["items"], "[]"
    return None, ""


def _type(child: Node) -> str:
    kind = child["type"]
    if kind == "array":
        most = f"list, at most {child['maxItems']}: " if "maxItems" in child else "list: "
        return most + _type(child["items"])
    if kind == "object":
        return "any object" if "x-kubernetes-preserve-unknown-fields" in child else _map(child)
    if "enum" in child:
        return ", ".join(f"`{word}`" for word in child["enum"])
    low, high = child.get("minimum"), child.get("maximum")
    if kind in ("integer", "number") and (low is not None or high is not None):
        return f"{kind}, {low} to {high}" if high not in (None, *LARGEST) else f"{kind}, from {low}"
    return f"{kind}, at most {child['maxLength']} characters" if "maxLength" in child else str(kind)


def _map(child: Node) -> str:
    values = child.get("additionalProperties")
    if values is None:
        return "object"
    most = f"map, at most {child['maxProperties']}: " if "maxProperties" in child else "map: "
    return most + _type(values)


def _meaning(name: str, child: Node, parent: Node) -> str:
    text = _MARKER.sub("", child.get("description", "")).strip()
    text = "" if text.rstrip(".") == name else text
    rules = [rule["message"] for rule in child.get(VALIDATIONS, []) if "oldSelf" not in rule["rule"]]
    if "properties" not in child:
        text = " ".join([text, *(f"{message}." for message in rules)])
    default = child.get("default")
    if default not in (None, {}, []) and "properties" not in child:
        text += f" Default: `{str(default).lower() if isinstance(default, bool) else default}`."
    needed = "**Required.** " if name in parent.get("required", []) else ""
    return (needed + text).strip()


def _cell(text: str) -> str:
    """A backslash and a bar mean something in a table; braces and brackets do not."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    program = "python -m sweeprun_operator.api.document"
    sys.exit(generated.main({DOCUMENT: document()}, program=program, source="the models say"))
