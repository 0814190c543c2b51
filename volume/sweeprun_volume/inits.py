"""sweep_init: a staging directory for each of its pods, and the publication of one of them. The first one is final."""

from __future__ import annotations

import posixpath
from typing import Any, Optional

from sweeprun_protocol.codec import MAX_RECORD_BYTES, Fields, RecordError
from sweeprun_protocol.layout import INITS
from sweeprun_protocol.names import is_file_name
from sweeprun_protocol.prepare import PrepareRequest
from sweeprun_protocol.reasons import BlockedReason
from sweeprun_protocol.records import InitRecord, read_run_id

from .errors import Stopped, UnsafeEntryError, blocked
from .operations import Volume
from .records_io import publish_record, read_record
from .runs import init_record_path

RUN_FILE = "run.json"
"""What sweep_init may say of the run: `{"runId": ..., "wandbRunId": ...}`, both optional."""


def staging_path(key: str, staging: str) -> str:
    """Raises ValueError where one of them is no plain file name."""
    for name in (key, staging):
        if not is_file_name(name):
            raise ValueError(f"{name!r} is no plain file name")
    return posixpath.join(INITS, key, staging)


def make_init_directory(volume: Volume, *, key: str, staging: str) -> str:
    """Directory of one pod of sweep_init, relative to the root; it is there already where the pod's init ran twice."""
    path = staging_path(key, staging)
    volume.make_directories(path)
    return path


def publish_init(volume: Volume, request: PrepareRequest, *, staging: str) -> InitRecord:
    """Make the result of this pod that of the fresh start, unless another pod's is already.

    Raises:
        Stopped: Blocked(InitInvalid) where the directory does not hold what a run needs: nothing is published then,
            so that a second try can do better.
    """
    key = request.init_key
    if key is None:
        raise blocked(BlockedReason.REQUEST_INVALID, "the request names no init key")
    path = staging_path(key, staging)
    mine = _read_staging(volume, path, key=key, staging=staging)
    config = posixpath.join(path, request.configuration.file_name)
    if _size(volume, config) is None:
        raise _invalid(f"sweep_init left no {request.configuration.file_name} in its directory ({path})")
    # a script writes without fsync, and what is the result must outlive a power loss
    volume.sync_file(config)
    volume.sync_directory(path)
    if publish_record(volume, init_record_path(key), mine):
        return mine
    found = read_record(volume, init_record_path(key), InitRecord.from_value)
    if found is None:
        raise RecordError(init_record_path(key), "was published by somebody and cannot be opened")
    return found


def _read_staging(volume: Volume, path: str, *, key: str, staging: str) -> InitRecord:
    try:
        said = read_record(volume, posixpath.join(path, RUN_FILE), _said)
    except (RecordError, UnsafeEntryError) as error:
        raise _invalid(str(error)) from None
    run_id, wandb_run_id = said if said is not None else (None, None)
    return InitRecord(key=key, staging=staging, run_id=run_id, wandb_run_id=wandb_run_id)


def _said(value: Any, where: str) -> tuple[Optional[str], Optional[str]]:
    fields = Fields(value, where)
    run_id = fields.optional("runId", lambda name: read_run_id(fields, name))
    return run_id, fields.optional("wandbRunId", lambda name: fields.text(name, most=64))


def _size(volume: Volume, path: str) -> Optional[int]:
    try:
        data = volume.read(path, limit=MAX_RECORD_BYTES)
    except UnsafeEntryError as error:
        raise _invalid(str(error)) from None
    return None if data is None else len(data)


def _invalid(message: str) -> Stopped:
    return blocked(BlockedReason.INIT_INVALID, message)
