"""From pydantic models to the structural schemas that an API server takes.

Pydantic's JSON schema is close, but a CRD has no references, no union with null, no exclusive bounds, and wants every
opaque object and every list to say how it is merged.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from .rules import VALIDATIONS

Node = dict[str, Any]

DROPPED = ("title", "additionalProperties", "default", "$ref")
"""Written anew below, or not at all."""
KEPT = frozenset(
    {
        "description",
        "enum",
        "format",
        "items",
        "maximum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "minimum",
        "minItems",
        "minLength",
        "minProperties",
        "pattern",
        "properties",
        "required",
        "type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
        VALIDATIONS,
    }
)
ORDER = ("description", "type", "format", "enum", "default", "pattern")


class SchemaError(Exception):
    """A model says something that a structural schema cannot; names the field."""


class _Generator(GenerateJsonSchema):
    """Absent and null are the same to us, and absent is what is written: no field is nullable."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        return {"type": "string", "enum": list(schema["expected"])}


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> Node:
    """Schema of the model as the API server takes it; without `defaults`, what is absent stays absent.

    Raises SchemaError.
    """
    schema = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    return _convert(schema, schema.get("$defs", {}), where=model.__name__, defaults=defaults)


def _convert(node: Node, definitions: dict[str, Node], *, where: str, defaults: bool) -> Node:
    full = _resolved(node, definitions)
    if full.get("type") == "object" and "properties" not in full:
        converted = _map(full, definitions, where=where, defaults=defaults)
    else:
        converted = {key: value for key, value in full.items() if key not in DROPPED and key != "$defs"}
    if "properties" in converted:
        converted["properties"] = {
            name: _convert(child, definitions, where=f"{where}.{name}", defaults=defaults)
            for name, child in converted["properties"].items()
        }
    if "items" in converted:
        converted["items"] = _convert(converted["items"], definitions, where=f"{where}[]", defaults=defaults)
        converted.setdefault("x-kubernetes-list-type", "atomic")
    if converted.get("type") == "integer":
        converted["format"] = "int64"
    if "description" in converted:
        converted["description"] = " ".join(converted["description"].split())
    if defaults and full.get("default") is not None:
        converted["default"] = _default(full["default"], ruled=VALIDATIONS in converted)
    unknown = set(converted) - KEPT - {"default", "additionalProperties"}
    if unknown or "type" not in converted:
        raise SchemaError(f"{where}: no structural schema with {sorted(unknown) or 'no type'}: {node}")
    return {key: converted[key] for key in (*ORDER, *sorted(set(converted) - set(ORDER))) if key in converted}


def _default(value: Any, *, ruled: bool) -> Any:
    """{} for objects: the API server fills in their fields' own defaults. Not before it tries the object's rules on
    the default, however: where there are any, the fields are written out."""
    if not isinstance(value, dict):
        return value
    return {key: child for key, child in value.items() if child is not None} if ruled else {}


def _resolved(node: Node, definitions: dict[str, Node]) -> Node:
    """The definition that a node refers to, with what the node itself says on top."""
    if "$ref" not in node:
        return node
    definition = _resolved(definitions[node["$ref"].rpartition("/")[2]], definitions)
    rules = [*definition.get(VALIDATIONS, []), *node.get(VALIDATIONS, [])]
    return {**definition, **node, **({VALIDATIONS: rules} if rules else {})}


def _map(node: Node, definitions: dict[str, Node], *, where: str, defaults: bool) -> Node:
    converted = {key: value for key, value in node.items() if key not in DROPPED}
    values = node.get("additionalProperties")
    if isinstance(values, dict):
        converted["additionalProperties"] = _convert(values, definitions, where=f"{where}{{}}", defaults=defaults)
    else:
        converted["x-kubernetes-preserve-unknown-fields"] = True
    return converted
