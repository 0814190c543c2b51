"""Rules that a schema cannot say, each written twice: as CEL for the API server, as Python for local mode.

A rule on a value goes into its annotation; rules on a whole object go into the model's RULES. Rules that compare with
the object as it was (`oldSelf`) exist for the API server alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True, kw_only=True)
class Rule:
    expression: str
    """CEL; `self` is the annotated value."""
    message: str
    """What is wrong and what to do; shown by kubectl after the field's path."""
    holds: Callable[[Any], bool] | None = None
    """The same in Python; None where it needs the object as it was."""
    field: str | None = None
    """For rules on objects: the field that the message is about, as `.runId`."""

    def check(self, value: Any) -> None:
        """Raises ValueError with the message."""
        if self.holds is not None and not self.holds(value):
            raise ValueError(self.message)

    def to_wire(self) -> dict[str, str]:
        wire = {"rule": self.expression, "message": self.message}
        return wire | {"fieldPath": self.field} if self.field else wire

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def checked(value: Any) -> Any:
            self.check(value)
            return value

        return core_schema.no_info_after_validator_function(checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        node = handler(schema)
        return {**node, VALIDATIONS: [*node.get(VALIDATIONS, []), self.to_wire()]}


def immutable(field: str, why: str) -> Rule:
    return Rule(
        expression="self == oldSelf",
        message=f"{field} cannot be changed: {why}; make another SweepRun",
    )


def _normal(path: str) -> bool:
    return all(part not in ("", ".", "..") for part in path.split("/"))


_NORMAL_CEL = "split('/').all(part, !(part in ['', '.', '..']))"


def relative_path(field: str) -> Rule:
    return Rule(
        expression=f"self.{_NORMAL_CEL} && !self.contains('\\\\')",
        message=f"{field} must be a relative path without a leading or trailing slash, without \\, . and .. parts",
        holds=lambda path: _normal(path) and "\\" not in path,
    )


def absolute_path(field: str) -> Rule:
    return Rule(
        expression=f"self.startsWith('/') && self.substring(1).{_NORMAL_CEL} && !self.contains(':')",
        message=f"{field} must be an absolute path other than /, without trailing slash, without :, . and .. parts",
        holds=lambda path: path.startswith("/") and _normal(path[1:]) and ":" not in path,
    )


def placeholders(field: str, *names: str) -> Rule:
    """Braces may hold nothing but these names."""
    taken = "".join(f".replace('{{{name}}}', '')" for name in names)

    def holds(text: str) -> bool:
        for name in names:
            text = text.replace(f"{{{name}}}", "")
        return "{" not in text and "}" not in text

    allowed = " and ".join(f"{{{name}}}" for name in names)
    return Rule(
        expression=f"!self{taken}.matches('[{{}}]')",
        message=f"{field} may hold the placeholder{'s' if len(names) > 1 else ''} {allowed} and no other braces",
        holds=holds,
    )
