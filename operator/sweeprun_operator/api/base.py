"""The base of every API model: camelCase on the wire, snake_case here, unknown fields refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def to_wire(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class StatusModel(ApiModel):
    """Status is ours, but may come from a newer or older operator: unknown fields are dropped, not refused."""

    model_config = ConfigDict(extra="ignore")


Seconds = Annotated[int, Field(ge=1, le=31_536_000)]
Count = Annotated[int, Field(ge=0, le=2_147_483_647)]
PositiveCount = Annotated[int, Field(ge=1, le=1_000_000)]
Opaque = dict[str, Any]
"""Kept whole by the API server (x-kubernetes-preserve-unknown-fields); its size is bounded in code."""
