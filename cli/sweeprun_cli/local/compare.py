"""Compares two final checkpoints bit for bit: `python -m sweeprun_cli.local.compare A B` prints what it found as JSON.

A process of its own, since it needs torch, which the command does without. It unpickles: only for files that this very
command has just had written.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweeprun_protocol.layout import MANIFEST, parse_step_name

COMPARE_SECONDS = 60.0


class CompareError(Exception):
    """The two states cannot be compared; says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a state, as `model` or `optimizer`."""

    name: str
    values: int
    bytes: int
    """Of its tensors and arrays."""
    differences: tuple[str, ...]
    """Paths of the values that are not the same in both."""


@dataclass(frozen=True, slots=True)
class _Value:
    digest: str
    size: int


def final_checkpoint(directory: Path) -> Path:
    """The checkpoint of the last step in a checkpoint directory. Raises CompareError."""
    own = [(step, path) for path in directory.glob("*") if (step := parse_step_name(path.name)) is not None]
    if own:
        return max(own)[1]
    files = [path for path in directory.glob("*.pt") if path.is_file()]
    if not files:
        raise CompareError(f"{directory} holds no checkpoint")
    return max(files, key=lambda path: path.stat().st_mtime_ns)


async def compare(first: Path, second: Path) -> list[Part]:
    """Raises CompareError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, str(first), str(second)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(COMPARE_SECONDS):
            said, problem = await process.communicate()
    except TimeoutError:
        raise CompareError(f"the final states were not compared within {COMPARE_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise CompareError(f"the final states cannot be compared: {problem.decode(errors='replace')[-500:]}")
    return [Part(**{**part, "differences": tuple(part["differences"])}) for part in json.loads(said)]


def parts(first: dict[str, _Value], second: dict[str, _Value]) -> Iterator[Part]:
    """Both states side by side, grouped by the first element of the paths."""
    names = dict.fromkeys(path.split("/", 1)[0] for path in (*first, *second))
    for name in names:
        paths = [path for path in {**first, **second} if path.split("/", 1)[0] == name]
        size = sum(first[path].size for path in paths if path in first)
        yield Part(name, len(paths), size, tuple(path for path in paths if first.get(path) != second.get(path)))


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, _Value]]:
    """Every leaf by its path; containers count by their keys, their length and their type."""
    if isinstance(value, dict):
        yield path or "layout", _leaf(f"dict:{sorted(map(repr, value))}".encode())
        for key, item in value.items():
            yield from flatten(item, f"{path}/{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        yield path or "layout", _leaf(f"{type(value).__name__}:{len(value)}".encode())
        for index, item in enumerate(value):
            yield from flatten(item, f"{path}/{index}" if path else str(index))
    else:
        yield path or "layout", _value(value)


def _value(value: Any) -> _Value:
    if hasattr(value, "detach"):
        value = value.detach().cpu().contiguous()
        head = f"tensor:{value.dtype}:{tuple(value.shape)}:".encode()
        # As bytes: bfloat16 has no numpy type.
        data = value.flatten().view(_uint8()).numpy().tobytes()
        return _leaf(head, data)
    if hasattr(value, "tobytes"):
        return _leaf(f"array:{value.dtype}:{value.shape}:".encode(), value.tobytes())
    if isinstance(value, float):
        return _leaf(f"float:{value.hex()}".encode())
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return _leaf(f"{type(value).__name__}:{value!r}".encode())
    raise TypeError(f"a value of type {type(value).__name__} cannot be compared bit for bit")


def _uint8() -> Any:
    import torch

    return torch.uint8


def _leaf(head: bytes, data: bytes = b"") -> _Value:
    return _Value(hashlib.sha256(head + data).hexdigest(), len(data))


def without_attempts(tracked: Any) -> Any:
    """The rows for W&B, each without the attempt that computed it: that one is not the same, and need not be."""
    return {**tracked, "rows": [[step, row] for step, _, row in tracked["rows"]]}


def _load(checkpoint: Path) -> dict[str, _Value]:
    import torch

    from sweeprun_trainer.run import TRACKING

    files = [checkpoint]
    if checkpoint.is_dir():
        files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST)
    found: dict[str, _Value] = {}
    for file in files:
        if file.suffix == ".json":
            state = json.loads(file.read_bytes())
        else:
            state = torch.load(file, map_location="cpu", weights_only=False)
        prefix = "" if len(files) == 1 else file.stem
        found.update(flatten(without_attempts(state) if prefix == TRACKING else state, prefix))
    return found


def main(arguments: list[str]) -> None:
    first, second = (_load(Path(argument)) for argument in arguments)
    print(json.dumps([asdict(part) for part in parts(first, second)]))


if __name__ == "__main__":
    main(sys.argv[1:])
