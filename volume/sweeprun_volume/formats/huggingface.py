"""`checkpoint-<step>`: what the Trainer of transformers leaves (read in its source, 5.24).

Trainer writes into the final directory and resumes from the highest number without a look inside. What it does leave is
an order: model, optimizer, random states, and trainer_state.json last; a checkpoint that SIGTERM asked for holds a file
that says so until it is done. torch files carry CRCs, safetensors and text carry none.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Optional

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import MAX_STEP
from sweeprun_protocol.reasons import Format, Level, RefusalReason
from sweeprun_volume.errors import UnsafeEntryError
from sweeprun_volume.operations import Entry, Facts

from . import Checked, Context, Recognised, Refused, Sighting
from .chunks import Plan
from .contents import read_contents
from .dcp import plan_directory
from .deepspeed import STEP_DIRECTORY, check_deepspeed, check_ranks, ranked
from .foreign_json import check_document, open_document
from .safetensors import NOTE, check_name
from .safetensors_header import SUFFIX
from .torch_zip import plan_file
from .tree import walk_files
from .weights_index import INDEX_SUFFIX, check_weights, parts_without_index

STATE = "trainer_state.json"
INCOMPLETE = "checkpoint-is-incomplete.txt"
"""There while a checkpoint is written that SIGTERM asked for. Its absence proves nothing, its presence is a veto."""
MAX_STATE_BYTES = 128 << 20
"""It grows with every logged step."""
FAST_NOTE = "sizes and headers were read, contents were not (validation level Fast)"

_NAME = re.compile(r"checkpoint-([0-9]{1,15})")
_MARKS = frozenset(
    {
        *(STATE, INCOMPLETE, "scheduler.pt", "optimizer.pt", "optimizer.bin"),
        *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
        *("adapter_model.safetensors", "adapter_model.bin", "pytorch_model_fsdp.bin", "pytorch_model_fsdp_0"),
    }
)
_MARK_PATTERN = re.compile(
    r"rng_state.*\.pth|(pytorch_model|model)-[0-9]+-of-[0-9]+\.(bin|safetensors)|" + STEP_DIRECTORY
)
_MODEL = re.compile(
    r"(.*/)?([^/]+\.safetensors|(pytorch_model|adapter_model)[^/]*\.bin)|pytorch_model_fsdp_[0-9]+/.+|"
    rf"{STEP_DIRECTORY}/[^/]+_model_states\.pt"
)
_OPTIMIZER = re.compile(
    r"optimizer\.(pt|bin)|optimizer\.pt_.+|optimizer_[0-9]+/.+|optimizer(_[0-9]+)?_rank[0-9]+\.bin|"
    rf"rank[0-9]+-of-[0-9]+-optimizer\.pt|{STEP_DIRECTORY}/.+"
)
"""One process; FSDP with a whole state; SageMaker; FSDP with DCP; FSDP by ranks; XLA; DeepSpeed."""
_RNG = re.compile(r"(rng_state_)([0-9]{1,6})(\.pth)")
"""With one process the name has no number."""
_DCP_DIRECTORY = re.compile(r"(pytorch_model_fsdp|optimizer)_[0-9]+/")
_RANKED = re.compile(r"(.*_rank)([0-9]{1,6})(\.bin)")
_ACCELERATE = re.compile(r"random_states_[0-9]+\.pkl")
_OWN_TORCH = re.compile(
    r"(optimizer|scheduler|scaler)\.pt|training_args\.bin|rng_state(_[0-9]+)?\.pth|optimizer[^/]*\.bin|"
    rf"rank[0-9]+-of-[0-9]+-optimizer\.pt|(.*/)?(pytorch_model|adapter_model)[^/]*\.bin|{STEP_DIRECTORY}/.+\.pt"
)
"""Files that torch.save wrote, or they are damaged."""
_TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_ZIP = b"PK\x03\x04"


class HuggingFaceFormat:
    kind = Format.HUGGING_FACE

    def recognise(self, sighting: Sighting) -> Optional[Recognised]:
        match = _NAME.fullmatch(sighting.entry.name)
        if match is None or sighting.listing is None or int(match.group(1)) > MAX_STEP:
            return None
        return Recognised(int(match.group(1))) if any(map(_is_mark, sighting.listing)) else None

    def check(self, context: Context, path: str, *, step: int, epoch: int) -> Checked:  # noqa: ARG002
        place = posixpath.join(context.layout.directory, path)
        if context.volume.exists(posixpath.join(place, INCOMPLETE)):
            text = f"{INCOMPLETE} lies in it: the save that SIGTERM asked for was never finished"
            raise Refused(RefusalReason.NO_MANIFEST, text, entry=INCOMPLETE)
        files = dict(sorted(walk_files(context.volume, place)))
        for name in files:
            check_name(name)
        _check_state(context, place, files, step)
        world_size, notes = _check_set(context, place, files)
        check_weights(context, place, files)
        parts = _plan(context, place, files, world_size)
        total = sum(plan.size for plan in parts.plans)
        if context.level is Level.FAST:
            return Checked(None, 0, total, FAST_NOTE, world_size)
        contents = read_contents(context, parts.plans)
        note = "; ".join([*notes, *parts.notes])
        return Checked(contents.digest, total, parts.uncovered, note, world_size, contents)


def _is_mark(entry: Entry) -> bool:
    return entry.name in _MARKS or _MARK_PATTERN.fullmatch(entry.name) is not None


def _check_state(context: Context, place: str, files: Mapping[str, Facts], step: int) -> None:
    if STATE not in files:
        if any(map(_ACCELERATE.fullmatch, files)):
            text = "written by Accelerate's save_state, not by Trainer: nothing in it tells whether it is whole"
            raise Refused(RefusalReason.NOT_RESUMABLE, text)
        text = f"{STATE}, which Trainer writes last, is missing: the save was never finished"
        raise Refused(RefusalReason.NO_MANIFEST, text, entry=STATE)
    cursor = open_document(context, place, STATE, limit=MAX_STATE_BYTES)
    found: Optional[int] = None
    for key in cursor.members(10_000):
        if key == "global_step":
            found = cursor.integer()
        else:
            cursor.skip()
    cursor.end()
    if found != step:
        told = "no step" if found is None else f"step {found}"
        text = f"{STATE} tells of {told}, the directory's name of step {step}"
        raise Refused(RefusalReason.WRONG_EPOCH, text, entry=STATE)


def _check_set(context: Context, place: str, files: Mapping[str, Facts]) -> tuple[Optional[int], list[str]]:
    """That nothing is missing as far as names tell; (ranks that wrote it, notes)."""
    parts = parts_without_index(list(files))
    if parts:
        text = f"{parts[0]} is one of several parts, and their index is missing"
        raise Refused(RefusalReason.FILE_MISSING, text, entry=parts[0])
    if not any(map(_MODEL.fullmatch, files)):
        raise Refused(RefusalReason.FILE_MISSING, "no file of a model is in it")
    for (prefix, suffix), numbers in ranked(_RANKED, files).items():
        check_ranks(prefix, suffix, numbers)
    ranks = _ranks(files)
    optimizer = any(map(_OPTIMIZER.fullmatch, files))
    if not optimizer and not ranks and "scheduler.pt" not in files:
        text = "weights only, no optimizer: saved with save_only_model"
        if context.resumable_only:
            raise Refused(RefusalReason.NOT_RESUMABLE, text)
        return None, [text]
    deepspeed = check_deepspeed(context, place, files, ranks=max(ranks, default=None))
    for there, what in (
        (optimizer, "optimizer.pt"),
        (deepspeed or "scheduler.pt" in files, "scheduler.pt"),
        (bool(ranks), "rng_state.pth"),
    ):
        if not there:
            text = f"{what} is missing, though more than a model was saved"
            raise Refused(RefusalReason.FILE_MISSING, text, entry=what)
    if len(ranks) > 1:
        return None, ["two saves left random states, of one rank and of several: how many ranks there were is unknown"]
    (world_size,) = ranks
    if world_size == 1:
        return 1, []
    return world_size, [f"{world_size} random states are there; that there were no more ranks is written nowhere"]


def _ranks(files: Mapping[str, Facts]) -> set[int]:
    """How many ranks left random states. None: none did; two numbers: saves by one and by several left theirs."""
    found = {1} if "rng_state.pth" in files else set()
    for (prefix, suffix), numbers in ranked(_RNG, files).items():
        check_ranks(prefix, suffix, numbers)
        if len(numbers) == 1:
            text = f"{prefix}0{suffix} is that of one of several ranks, and the others' are missing"
            raise Refused(RefusalReason.FILE_MISSING, text, entry=f"{prefix}1{suffix}")
        found.add(len(numbers))
    return found


@dataclass(frozen=True)
class _Parts:
    plans: Sequence[Plan]
    uncovered: int
    notes: Sequence[str]
    """Sentences, each once."""


def _plan(context: Context, place: str, files: Mapping[str, Facts], world_size: Optional[int]) -> _Parts:
    """How every file is read; nothing is read twice."""
    plans: list[Plan] = []
    notes: dict[str, list[str]] = {}
    uncovered = 0
    for directory in sorted({name.partition("/")[0] for name in files if _DCP_DIRECTORY.match(name)}):
        planned = plan_directory(context, posixpath.join(place, directory), f"{directory}/")
        _check_shards(directory, planned.world_size, world_size)
        plans.extend(planned.plans)
        uncovered += planned.uncovered
        if planned.note:
            notes.setdefault(planned.note, []).append(directory)
    for name, facts in files.items():
        if _DCP_DIRECTORY.match(name):
            continue
        path = posixpath.join(place, name)
        if _is_torch(context, path, name):
            file = plan_file(context, path, name)
            plans.append(file.plan)
            uncovered += file.uncovered
            if file.note:
                notes.setdefault(file.note, []).append(name)
            continue
        if name.endswith(".json") and name != STATE and not name.endswith(INDEX_SUFFIX):
            check_document(context, place, name, facts.size)
        plans.append(Plan(path, name, facts.size, facts.mtime_ns))
        uncovered += facts.size
        if name.endswith(SUFFIX):
            notes[NOTE] = [name]
    return _Parts(plans, uncovered, [_counted(note, names) for note, names in sorted(notes.items())])


def _check_shards(directory: str, shards: Optional[int], ranks: Optional[int]) -> None:
    """Each rank that wrote a shard left random states too; a rank may have had nothing to write."""
    if shards is not None and ranks is not None and shards > ranks:
        text = f"{shards} ranks wrote {directory}, {ranks} left random states"
        raise Refused(RefusalReason.FILE_MISSING, text, entry=f"rng_state_{ranks}.pth")


def _counted(note: str, names: Sequence[str]) -> str:
    return note if note == NOTE else f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}"


def _is_torch(context: Context, path: str, name: str) -> bool:
    """One of Trainer's own by its name, another one by its first bytes."""
    if _OWN_TORCH.fullmatch(name):
        return True
    if not name.endswith(_TORCH_SUFFIXES):
        return False
    buffer = memoryview(bytearray(len(_ZIP)))
    try:
        with context.volume.open_file(path) as (descriptor, _):
            context.volume.read_at(descriptor, buffer, 0, path)
    except FileNotFoundError:
        raise Refused(RefusalReason.FILE_MISSING, f"{name} vanished while it was looked at", entry=name) from None
    except UnsafeEntryError as error:
        raise Refused(RefusalReason.NOT_A_REGULAR_FILE, str(error), entry=name) from None
    return bytes(buffer) == _ZIP
