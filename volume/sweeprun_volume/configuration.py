"""The configuration file: written once per run, kept byte for byte; and the record that says what the run is."""

from __future__ import annotations

import posixpath
from typing import Optional

from sweeprun_protocol.codec import MAX_RECORD_BYTES, RecordError
from sweeprun_protocol.layout import INITS
from sweeprun_protocol.manifest import digest_of
from sweeprun_protocol.prepare import PrepareRequest
from sweeprun_protocol.reasons import BlockedReason
from sweeprun_protocol.records import InitRecord, RunRecord

from .errors import blocked
from .operations import Volume
from .records_io import publish_record
from .runs import Run
from .standings import INIT_OF_RUN, layout_of, read_run


def settle(volume: Volume, request: PrepareRequest, run: Run, *, volume_id: str) -> RunRecord:
    """Write configuration and run record where they are missing; else prove that they are what they were.

    Raises:
        Stopped: Blocked where the configuration changed, or sweep_init left none.
    """
    layout = run.standing.layout
    record = read_run(volume, layout)
    if record is None:
        record = _write(volume, request, run, volume_id)
    if record.run_id != run.standing.run_id:
        raise RecordError(layout.run_record, f"is the record of run {record.run_id}")
    if record.volume_id != volume_id:
        raise blocked(
            BlockedReason.VOLUME_CHANGED,
            f"run {record.run_id} was begun on volume {record.volume_id}, this is {volume_id}: a copy was mounted",
        )
    _check(volume, request, run, record)
    return record


def _write(volume: Volume, request: PrepareRequest, run: Run, volume_id: str) -> RunRecord:
    layout = run.standing.layout
    name = request.configuration.file_name
    path = posixpath.join(layout.directory, name)
    data = volume.read(path, limit=MAX_RECORD_BYTES)
    if data is None:
        data = _content(volume, request, run)
        if data is not None and not volume.publish(path, data):
            data = volume.read(path, limit=MAX_RECORD_BYTES)
    elif not run.adopted and request.configuration.text not in (None, data.decode("utf-8", "replace")):
        raise blocked(
            BlockedReason.RECORD_INVALID,
            f"{path} exists with other contents than spec.config and run {run.standing.run_id} is new: remove it",
        )
    init = run.init if not run.adopted else None
    if init is not None:
        publish_record(volume, posixpath.join(layout.directory, INIT_OF_RUN), init)
    from_init = init.wandb_run_id if init is not None else None
    # a tracking run that holds the curve of the run before would drop the steps that this one repeats
    asked_for = request.wandb_run_id if run.previous_run_id is None else None
    record = RunRecord(
        run_id=run.standing.run_id,
        sweep_name=request.sweep_name,
        volume_id=volume_id,
        config_file=name if data is not None else None,
        config_digest=digest_of(data) if data is not None else None,
        wandb_run_id=from_init or asked_for or run.standing.run_id,
        previous_run_id=run.previous_run_id,
    )
    if publish_record(volume, layout.run_record, record):
        return record
    found = read_run(volume, layout)
    if found is None:
        raise RecordError(layout.run_record, "was published by somebody and cannot be opened")
    return found


def _content(volume: Volume, request: PrepareRequest, run: Run) -> Optional[bytes]:
    """From spec.config, from sweep_init, or from the run that this one takes the place of."""
    if request.configuration.text is not None:
        return request.configuration.text.encode()
    if run.init is not None and not run.adopted:
        return _from_init(volume, run.init, request.configuration.file_name)
    if run.previous_run_id is not None:
        previous = layout_of(request, run.previous_run_id)
        return volume.read(posixpath.join(previous.directory, request.configuration.file_name), limit=MAX_RECORD_BYTES)
    return None


def _from_init(volume: Volume, init: InitRecord, file_name: str) -> bytes:
    path = posixpath.join(INITS, init.key, init.staging, file_name)
    data = volume.read(path, limit=MAX_RECORD_BYTES)
    if data is None:
        raise blocked(BlockedReason.INIT_INVALID, f"sweep_init left no {file_name} in its directory ({path})")
    return data


def _check(volume: Volume, request: PrepareRequest, run: Run, record: RunRecord) -> None:
    if record.config_file is None:
        return
    path = posixpath.join(run.standing.layout.directory, record.config_file)
    data = volume.read(path, limit=MAX_RECORD_BYTES)
    if data is None:
        data = _restored(volume, request, path, record)
    if digest_of(data) != record.config_digest:
        raise blocked(
            BlockedReason.RECORD_INVALID,
            f"{path} is not the configuration that this run began with ({record.config_digest}): put it back",
        )


def _restored(volume: Volume, request: PrepareRequest, path: str, record: RunRecord) -> bytes:
    """A configuration file that somebody removed comes back where the specification still holds its bytes."""
    text = request.configuration.text
    data = text.encode() if text is not None else b""
    if text is None or digest_of(data) != record.config_digest or not volume.publish(path, data):
        raise blocked(BlockedReason.RECORD_INVALID, f"{path}, the configuration of this run, is missing: put it back")
    return data
