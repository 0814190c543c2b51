"""Checkpoints of Lightning's Trainer: one file of torch.save, of a mapping that names Lightning's version.

Its Trainer writes `epoch`, `global_step` and `pytorch-lightning_version` first; with `save_weights_only=True` the
optimizers' states are left out (lightning 2.6, CheckpointConnector.dump_checkpoint).
"""

from __future__ import annotations

from typing import Optional

from sweeprun_protocol.reasons import Format
from sweeprun_volume.errors import UnsafeEntryError
from sweeprun_volume.operations import FILE

from . import Checked, Context, Recognised, Refused, Sighting
from .pickle_tokens import Value
from .torch_pickle import integer_at, look_into, text_keys
from .torch_zip import check_file, step_in_name
from .zip_directory import Source, first_entry

SUFFIX = ".ckpt"
BEGINNING = 64 << 10
"""Bytes of a file that are looked at to recognise it."""

_VERSION_KEY = "pytorch-lightning_version"
_NEEDED = frozenset({"optimizer_states", "loops"})
_NONE_SETITEMS_STOP = b"Nu."


class LightningFormat:
    kind = Format.LIGHTNING

    def __init__(self, *, chosen: bool = False) -> None:
        """`chosen`: the user says that what ends in .ckpt is Lightning's, a file with a damaged beginning included."""
        self._chosen = chosen

    def recognise(self, sighting: Sighting) -> Optional[Recognised]:
        entry = sighting.entry
        if sighting.listing is not None or not entry.name.endswith(SUFFIX):
            return None
        told = _beginning(sighting) if entry.kind == FILE else None
        if told is None and not self._chosen:
            return None
        step = integer_at(told, "global_step") if told is not None else None
        if step is None:
            step = step_in_name(entry.name)
        return Recognised(step or 0)

    def check(self, context: Context, path: str, *, step: int, epoch: int) -> Checked:  # noqa: ARG002
        return check_file(context, path, _lacks_state)


def _lacks_state(top: Value) -> bool:
    return not text_keys(top) >= _NEEDED


def _beginning(sighting: Sighting) -> Optional[Value]:
    """The first items of the mapping, up to the key that makes it Lightning's; None where they do not begin so."""
    try:
        with sighting.volume.open_file(sighting.place) as (descriptor, facts):
            source = Source(sighting.volume, descriptor, sighting.place, facts.size)
            data = first_entry(source, "data.pkl", BEGINNING)
    except (Refused, UnsafeEntryError, FileNotFoundError):
        return None  # not judged here
    at = data.find(_VERSION_KEY.encode())
    if at < 0:
        return None
    # closed right behind the key, it is a whole pickle only if the key is one of the outermost mapping
    top = look_into(data[: at + len(_VERSION_KEY)] + _NONE_SETITEMS_STOP)
    return top if top is not None and _VERSION_KEY in text_keys(top) else None
