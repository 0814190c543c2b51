"""A page of a list of metadata: of each object only what a resync compares is made into Python objects.

Most of such a page are managed fields. Read whole, the lists were a third of what an operator with thousands of idle
runs spends; read so, they take a third of that (measured with pages of 1 MB).
"""

from __future__ import annotations

from typing import cast

from pydantic_core import SchemaValidator, ValidationError
from pydantic_core.core_schema import (
    CoreSchema,
    TypedDictSchema,
    dict_schema,
    list_schema,
    nullable_schema,
    str_schema,
    typed_dict_field,
    typed_dict_schema,
)

from .fields import sub, text
from .gateway import Raw

_TOKEN_CHARACTERS = 1 << 20


def _object(fields: dict[str, CoreSchema]) -> TypedDictSchema:
    return typed_dict_schema({name: typed_dict_field(schema, required=False) for name, schema in fields.items()})


_TEXT = nullable_schema(str_schema())
_METADATA = _object(
    {
        **dict.fromkeys(("namespace", "name", "uid", "resourceVersion"), _TEXT),
        "labels": nullable_schema(dict_schema(str_schema(), str_schema())),
    }
)
_PAGE = SchemaValidator(
    _object(
        {
            "metadata": _object({"continue": _TEXT}),
            "items": nullable_schema(list_schema(_object({"metadata": _METADATA}))),
        }
    )
)


def read_page(data: bytes) -> tuple[list[Raw], str | None]:
    """The objects, as far as they are needed, and the token of the next page. Raises ValueError: it is no such page."""
    try:
        page = cast(Raw, _PAGE.validate_json(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the answer"
        raise ValueError(f"{where}: {first['msg']}") from None
    return page.get("items") or [], token_of(page)


def token_of(page: Raw) -> str | None:
    """Of the next page; None: this is the last."""
    return text(sub(page, "metadata"), "continue", most=_TOKEN_CHARACTERS)
