"""Identifiers that cross a boundary: what a run ID, a sweep name and a slot may look like."""

from __future__ import annotations

import re

RUN_ID_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
"""A run ID is a directory name, a label value and a W&B run ID: at most 63 characters that all three accept."""

SWEEP_NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"

SLOT_PATTERN = r"^[a-z]{1,16}-[0-9]{1,4}$"
"""A slot is one replica of an attempt, `<replica type>-<index>`, for example `worker-1`."""

FILE_NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
"""A plain file name: no separator, no leading dot."""

# fullmatch everywhere: $ alone lets a trailing newline pass
_RUN_ID = re.compile(RUN_ID_PATTERN)
_SWEEP_NAME = re.compile(SWEEP_NAME_PATTERN)
_SLOT = re.compile(SLOT_PATTERN)
_FILE_NAME = re.compile(FILE_NAME_PATTERN)


def is_run_id(value: str) -> bool:
    return bool(_RUN_ID.fullmatch(value)) and not value.endswith(".incomplete")


def is_sweep_name(value: str) -> bool:
    return bool(_SWEEP_NAME.fullmatch(value))


def is_slot(value: str) -> bool:
    return bool(_SLOT.fullmatch(value))


def is_file_name(value: str) -> bool:
    return bool(_FILE_NAME.fullmatch(value))


def slot(replica_type: str, index: int) -> str:
    """`Worker`, 1 -> `worker-1`."""
    return f"{replica_type.lower()}-{index}"
