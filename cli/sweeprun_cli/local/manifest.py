"""Reads a SweepRun from a file and says what is wrong with it where the field stands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sweeprun_operator.api.spec import SweepRunSpec
from sweeprun_operator.api.structural import structural_schema
from sweeprun_operator.api.template import replicas
from sweeprun_operator.api.v1alpha1 import API_VERSION, KIND, SweepRun

from .gateway import NAMESPACE
from .store import Raw

_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


class ManifestError(ValueError):
    """The file cannot be run; the message names file and field and says what to do."""


@dataclass(frozen=True, slots=True)
class Manifest:
    path: Path
    raw: Raw
    run: SweepRun


def load(path: Path, *, changes: Iterable[str] = ()) -> Manifest:
    """`changes` are `field.path=value`, the value as YAML. Raises ManifestError."""
    raw = _document(path)
    for change in changes:
        _apply(raw, change)
    if not isinstance(raw.get("metadata"), dict):
        raise ManifestError(f"{path}: metadata: missing; give the run a name")
    if not raw["metadata"].get("name"):
        raise ManifestError(f"{path}: metadata.name: missing; local mode does not make up names")
    raw["metadata"]["namespace"] = NAMESPACE
    try:
        run = SweepRun.from_wire({**raw, "metadata": {**raw["metadata"], "uid": "not-created-yet"}})
    except ValidationError as error:
        raise ManifestError("\n".join(_said(path, one) for one in error.errors(include_url=False))) from None
    for replica in replicas(run.spec.template.spec):
        container = replica.container(run.spec.entrypoint.container_name)
        if container is not None and not container.node.get("command"):
            raise ManifestError(
                f"{path}: {container.path}.command: missing; local mode has no images, so it cannot know what one "
                "starts by itself: write the command here"
            )
    return Manifest(path=path, raw=raw, run=run)


def _document(path: Path) -> Raw:
    try:
        documents = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one is not None]
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} is no YAML: {error}") from None
    found = [one for one in documents if isinstance(one, dict) and one.get("kind") == KIND]
    if len(found) != 1:
        kinds = ", ".join(str(one.get("kind")) if isinstance(one, dict) else "something else" for one in documents)
        raise ManifestError(
            f"{path}: one {KIND} is needed, there are {len(found)} (the file holds: {kinds or 'nothing'})"
        )
    if found[0].get("apiVersion") != API_VERSION:
        raise ManifestError(f"{path}: apiVersion: {found[0].get('apiVersion')}: must be {API_VERSION}")
    return found[0]


def _said(path: Path, error: Any) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        text = "missing; it has no default"
    elif error["type"] == "extra_forbidden":
        text = f"there is no such field{_meant(error['loc'])}"
    return f"{path}: {where or 'SweepRun'}: {text}"


def _meant(place: tuple[str | int, ...]) -> str:
    """The field beside it whose name is most like it."""
    node: Any = {"properties": {"spec": structural_schema(SweepRunSpec)}}
    for part in place[:-1]:
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    near = get_close_matches(str(place[-1]), node.get("properties", {}), n=1)
    return f"; {near[0]} is one" if near else ""


def _apply(raw: Raw, change: str) -> None:
    name, separator, text = change.partition("=")
    parts: list[str | int] = [int(index) if index else word for word, index in _PART.findall(name)]
    if not separator or not parts:
        raise ManifestError(f"--set {change}: must be field.path=value, for example spec.limits.maxFailures=1")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ManifestError(f"--set {change}: the value is no YAML: {error}") from None
    target: Any = raw
    for part, following in pairwise(parts):
        target = _step(target, part, change, following)
    _put(target, parts[-1], value, change)


def _step(target: Any, part: str | int, change: str, following: str | int) -> Any:
    if isinstance(part, str) and isinstance(target, dict):
        return target.setdefault(part, {} if isinstance(following, str) else [])
    if isinstance(part, int) and isinstance(target, list) and part < len(target):
        return target[part]
    raise ManifestError(f"--set {change}: there is no {part}")


def _put(target: Any, part: str | int, value: Any, change: str) -> None:
    if isinstance(part, str) and isinstance(target, dict):
        target[part] = value
    elif isinstance(part, int) and isinstance(target, list) and part <= len(target):
        target[part : part + 1] = [value]
    else:
        raise ManifestError(f"--set {change}: there is no {part}")
