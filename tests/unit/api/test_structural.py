"""From small models to structural schemas."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from sweeprun_operator.api.base import ApiModel
from sweeprun_operator.api.rules import Rule
from sweeprun_operator.api.structural import SchemaError, structural_schema


class Colour(StrEnum):
    """A colour."""

    RED = "Red"


class Inner(ApiModel):
    """An inner object."""

    size: Annotated[int, Field(ge=1)] = 3
    note: str | None = None


class Ruled(Inner):
    RULES: ClassVar[tuple[Rule, ...]] = (Rule(expression="self.size < 9", message="too big"),)


def field_of(annotation, default=...):
    field = Field(...) if default is ... else Field(default)
    model = type("Model", (ApiModel,), {"__annotations__": {"one_field": annotation}, "one_field": field})
    return structural_schema(model)["properties"]["oneField"]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Annotated[str, Field(max_length=5, pattern="^a")], {"type": "string", "pattern": "^a", "maxLength": 5}),
        (bool, {"type": "boolean"}),
        (float, {"type": "number"}),
        (Annotated[int, Field(ge=0, le=9)], {"type": "integer", "format": "int64", "maximum": 9, "minimum": 0}),
        (datetime, {"type": "string", "format": "date-time"}),
        (Literal["One"], {"type": "string", "enum": ["One"]}),
        (Colour, {"description": "A colour.", "type": "string", "enum": ["Red"]}),
        (dict[str, Any], {"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
        (
            Annotated[dict[str, str], Field(max_length=4)],
            {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 4},
        ),
        (
            Annotated[list[str], Field(max_length=4)],
            {"type": "array", "items": {"type": "string"}, "maxItems": 4, "x-kubernetes-list-type": "atomic"},
        ),
    ],
)
def test_types(annotation, expected):
    assert field_of(annotation) == expected
    assert field_of(annotation | None, None) == expected


def test_objects_are_written_in_place():
    inner = field_of(Inner)
    assert inner["description"] == "An inner object."
    assert inner["properties"]["size"] == {"type": "integer", "format": "int64", "default": 3, "minimum": 1}
    assert inner["properties"]["note"] == {"type": "string"}


def test_the_default_of_an_object_is_empty_unless_rules_would_miss_its_fields():
    assert field_of(Inner, Inner())["default"] == {}
    assert field_of(Ruled, Ruled())["default"] == {"size": 3}


def test_rules_of_a_model_and_of_its_place_come_together():
    placed = field_of(Annotated[Ruled, Rule(expression="true", message="here")])
    assert [rule["message"] for rule in placed["x-kubernetes-validations"]] == ["too big", "here"]


def test_defaults_can_be_left_out():
    class Outer(ApiModel):
        inner: Inner = Inner()

    assert "default" not in str(structural_schema(Outer, defaults=False))


@pytest.mark.parametrize("annotation", [int | str, tuple[int, str], set[str], Annotated[int, Field(gt=0)]])
def test_what_a_structural_schema_cannot_say_is_an_error_with_the_field(annotation):
    with pytest.raises(SchemaError, match=r"Model\.oneField"):
        field_of(annotation)
