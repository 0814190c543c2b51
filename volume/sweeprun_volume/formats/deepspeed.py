"""What DeepSpeed puts into a checkpoint of Trainer: `global_step<N>/` with a file of each rank, and `latest`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Optional

from sweeprun_protocol.reasons import RefusalReason
from sweeprun_volume.errors import UnsafeEntryError
from sweeprun_volume.operations import Facts

from . import Context, Refused

STEP_DIRECTORY = r"global_step[0-9]+"
LATEST = "latest"

_STATES = re.compile(
    r"(global_step[0-9]+/(?:bf16_)?zero_pp_rank_)([0-9]{1,6})(_mp_rank_[0-9]+_(?:optim|model)_states\.pt)"
)
"""Of one data parallel rank (ZeRO)."""
_MODEL_STATES = re.compile(STEP_DIRECTORY + r"/[^/]+_model_states\.pt")


def check_deepspeed(context: Context, place: str, files: Mapping[str, Facts], *, ranks: Optional[int]) -> bool:
    """False where DeepSpeed wrote nothing of it. `ranks`: as the random states tell.

    Raises Refused: FILE_MISSING, TRUNCATED.
    """
    directories = {name.partition("/")[0] for name in files if re.match(STEP_DIRECTORY + "/", name)}
    if not directories and LATEST not in files:
        return False
    latest = _read_latest(context, place, files)
    if latest not in directories:
        text = f"{LATEST} names {latest[:80]!a}, which is not there"
        raise Refused(RefusalReason.FILE_MISSING, text, entry=LATEST)
    if not any(map(_MODEL_STATES.fullmatch, files)):
        raise Refused(RefusalReason.FILE_MISSING, f"{latest} holds no *_model_states.pt", entry=latest)
    for (prefix, suffix), numbers in ranked(_STATES, files).items():
        check_ranks(prefix, suffix, numbers)
        # ZeRO writes a file for each rank; MiCS for each rank of a group, and groups are equal
        if ranks is not None and (len(numbers) > ranks or ranks % len(numbers)):
            text = f"{len(numbers)} files {prefix}*{suffix}, and {ranks} random states"
            raise Refused(RefusalReason.FILE_MISSING, text, entry=f"{prefix}{len(numbers)}{suffix}")
    return True


def ranked(pattern: re.Pattern[str], files: Mapping[str, Facts]) -> dict[tuple[str, str], set[int]]:
    """Ranks by what stands before and behind their number in the names."""
    found: dict[tuple[str, str], set[int]] = {}
    for match in filter(None, map(pattern.fullmatch, files)):
        found.setdefault((match.group(1), match.group(3)), set()).add(int(match.group(2)))
    return found


def check_ranks(prefix: str, suffix: str, numbers: set[int]) -> None:
    """From 0 on without a gap. Raises Refused."""
    for number in range(len(numbers)):
        if number not in numbers:
            name = f"{prefix}{number}{suffix}"
            text = f"{name} is missing, that of rank {max(numbers)} is there"
            raise Refused(RefusalReason.FILE_MISSING, text, entry=name)


def _read_latest(context: Context, place: str, files: Mapping[str, Facts]) -> str:
    if LATEST not in files:
        raise Refused(RefusalReason.FILE_MISSING, f"{LATEST} is missing: DeepSpeed would not load it", entry=LATEST)
    try:
        data = context.volume.read(posixpath.join(place, LATEST), limit=4096)
    except UnsafeEntryError as error:
        raise Refused(RefusalReason.STRUCTURE, str(error), entry=LATEST) from None
    if not data:
        raise Refused(RefusalReason.TRUNCATED, f"{LATEST} is empty: it was written in place", entry=LATEST)
    return data.decode("utf-8", "replace").strip()
