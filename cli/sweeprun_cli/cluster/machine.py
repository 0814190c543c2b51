"""JSON and YAML for machines: ASCII only, so that nothing in it moves a terminal; secrets in plain text are masked."""

from __future__ import annotations

import json
from typing import Any

import yaml

from sweeprun_operator.api.acceptance import SECRET_NAME

from .options import Format, PlainFormat

MASK = "(masked)"
_COPIES = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})
"""Annotations that hold the whole manifest once more, secrets too."""


def machine(value: Any, form: Format | PlainFormat) -> str:
    shown = masked(value)
    if form.value == "json":
        return json.dumps(shown, indent=2, ensure_ascii=True).replace("\x7f", "\\u007f")
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=False, width=120).rstrip("\n")


def masked(value: Any) -> Any:
    """Environment variables whose names say that they are secret show that they are set, and not what to."""
    if isinstance(value, list):
        return [masked(item) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get("name")
    config = value.get("config")
    if isinstance(config, dict):
        value = {**value, "config": {key: MASK if SECRET_NAME.search(str(key)) else config[key] for key in config}}
    secret = isinstance(name, str) and isinstance(value.get("value"), str) and SECRET_NAME.search(name) is not None
    shown = {key: masked(item) for key, item in value.items() if key not in _COPIES}
    return {**shown, "value": MASK} if secret else shown
