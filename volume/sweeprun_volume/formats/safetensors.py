"""Weights in .safetensors: one file, or a directory of several with the index that says which belong together.

The format carries no checksums, so that a flipped bit in a tensor shows against a recorded digest alone. It holds
weights and nothing that training goes on with: format Auto passes it over without a judgement.
"""

from __future__ import annotations

import posixpath
from typing import Optional

from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.operations import FILE

from . import Checked, Context, Recognised, Refused, Sighting
from .chunks import Plan
from .contents import read_contents
from .foreign_json import check_document
from .safetensors_header import SUFFIX, Headers, step_inside
from .torch_zip import step_in_name
from .tree import require_text, walk_files
from .weights_index import INDEX_SUFFIX, check_weights, is_part, without_part

SAFETENSORS_INDEX_SUFFIX = SUFFIX + INDEX_SUFFIX
NOTE = "safetensors carries no checksums: damage to tensors shows only against the digest of an earlier full check"
FAST_NOTE = "headers were read, contents were not (validation level Fast)"

_TRAINER_STATE = "trainer_state.json"
"""Of Hugging Face's Trainer: the directory is its checkpoint."""


class SafetensorsFormat:
    kind = Format.SAFETENSORS

    def recognise(self, sighting: Sighting) -> Optional[Recognised]:
        name = sighting.entry.name
        if sighting.listing is None:
            if not name.endswith(SUFFIX):
                return None
            first = sighting.place if sighting.entry.kind == FILE else None
            return Recognised(_step(sighting, step_in_name(without_part(name)), first))
        names = [entry.name for entry in sighting.listing]
        if _TRAINER_STATE in names or not any(
            item.endswith(SAFETENSORS_INDEX_SUFFIX) or is_part(item) for item in names
        ):
            return None
        files = [entry.name for entry in sighting.listing if entry.kind == FILE and entry.name.endswith(SUFFIX)]
        first = posixpath.join(sighting.place, files[0]) if files else None
        return Recognised(_step(sighting, step_in_name(f"{name}."), first))

    def check(self, context: Context, path: str, *, step: int, epoch: int) -> Checked:  # noqa: ARG002
        place = posixpath.join(context.layout.directory, path)
        require_text(path)
        if context.resumable_only:
            text = "safetensors hold weights only, no optimizer: set the format Safetensors to go on from them"
            raise Refused(RefusalReason.NOT_RESUMABLE, text)
        facts = context.volume.facts(place)
        if facts is None:
            raise Refused(RefusalReason.FILE_MISSING, "it vanished before it was read")
        plans = [_plan_file(context, place)] if facts.kind == FILE else _plan_directory(context, place)
        total = sum(plan.size for plan in plans)
        if context.level is Level.FAST:
            return Checked(None, 0, total, FAST_NOTE)
        contents = read_contents(context, plans)
        return Checked(contents.digest, total, total, NOTE, contents=contents)


def _step(sighting: Sighting, named: Optional[int], first: Optional[str]) -> int:
    if named is not None:
        return named
    return step_inside(sighting.volume, first) if first is not None else 0


def _plan_file(context: Context, place: str) -> Plan:
    name = posixpath.basename(place)
    if is_part(name):
        text = "one of several parts: keep each checkpoint in a directory of its own, with its index"
        raise Refused(RefusalReason.NO_MANIFEST, text)
    header = Headers(context).read(place, "")
    return Plan(place, name, header.size, header.mtime_ns)


def _plan_directory(context: Context, place: str) -> list[Plan]:
    files = dict(sorted(walk_files(context.volume, place)))
    if not any("/" not in name and name.endswith(SAFETENSORS_INDEX_SUFFIX) for name in files):
        text = (
            f"no *{SAFETENSORS_INDEX_SUFFIX}, which is written last: whether all parts are there cannot be known (with "
            "HuggingFaceStorageWriter: set enable_consolidation, or save_distributed=False)"
        )
        raise Refused(RefusalReason.NO_MANIFEST, text)
    check_weights(context, place, files)
    for name, facts in files.items():
        check_name(name)
        if name.endswith(".json") and not name.endswith(INDEX_SUFFIX):
            check_document(context, place, name, facts.size)
    return [Plan(posixpath.join(place, name), name, facts.size, facts.mtime_ns) for name, facts in files.items()]


def check_name(name: str) -> None:
    """Of a file in a checkpoint. Raises Refused where no record could carry it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Refused(RefusalReason.STRUCTURE, f"the name {name!a} is no UTF-8") from None
