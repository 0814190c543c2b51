"""Detection as people read it, and what a format cannot show by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from support.damage.judging import Judged

_WHOLE = ("all_of_another_step", "all_of_another_run")
"""Another checkpoint under this one's name: whole, and nothing in it says whose it is."""
_PARTS = ("a_file_of_another_step", "a_file_of_another_run", "swapped_files")
"""Files of one shape, each whole by its own checksums: nothing says that they belong together."""
_NUMBERS = ("a_bit_in_the_metadata", "an_absurd_number")
"""Some bytes mean nothing to whoever loads it: times and versions in an archive's directory, a logged value."""
_TENSORS = ("a_bit_in_the_data", "a_page_of_zeros", "a_sparse_hole", "a_lost_tail", "overwritten_in_part")
"""Without checksums another tensor is a tensor."""
_OTHERS = ("a_missing_file", "an_extra_file", "a_directory_in_place_of_a_file")
"""Files beside that training can do without, as README or generation_config.json: no list says that they were there."""

BLIND: dict[str, tuple[str, ...]] = {
    "own": ("a_bit_in_the_metadata",),  # in what is told for people: its time, how long it took
    "torch": (*_WHOLE, *_NUMBERS),
    "torch-without-crc": (*_WHOLE, *_NUMBERS, *_TENSORS),
    "lightning": (*_WHOLE, *_NUMBERS),
    "dcp": (*_WHOLE, *_NUMBERS, *_PARTS, "stale_metadata"),  # its metadata tells shapes and places, no content
    # its largest file is so small here that a bit may hit the padding between entries, which nobody reads
    "hugging-face": ("all_of_another_run", "a_bit_in_the_data", *_NUMBERS, *_PARTS, *_OTHERS),
    "safetensors": (*_WHOLE, *_NUMBERS, *_TENSORS),
    "safetensors-sharded": (*_WHOLE, *_NUMBERS, *_PARTS, *_TENSORS, *_OTHERS),
}
"""By sample: kinds that the format alone cannot reveal, or not always; a digest that was recorded reveals all."""


def escaped(judged: Iterable[Judged]) -> list[Judged]:
    """Damage that went unseen where it must not: by the format alone, unless it is blind there, or with a record."""
    return [
        item
        for item in judged
        if item.recorded is None or (item.alone is None and item.kind not in BLIND.get(item.sample, ()))
    ]


def table(judged: Iterable[Judged], alarms: Mapping[str, int], rounds: int) -> str:
    """A line for each kind, a column for each sample: found by the format alone, and with what was recorded."""
    judged = list(judged)
    every = Counter((item.kind, item.sample) for item in judged)
    alone = Counter((item.kind, item.sample) for item in judged if item.alone is not None)
    recorded = Counter((item.kind, item.sample) for item in judged if item.recorded is not None)
    samples, kinds = list(dict.fromkeys(item.sample for item in judged)), list(dict.fromkeys(i.kind for i in judged))
    lines = [["found alone / with a record, %", *samples]]
    for kind in kinds:
        cells = [
            f"{_percent(alone[kind, one], every[kind, one])}/{_percent(recorded[kind, one], every[kind, one])}"
            if every[kind, one]
            else "-"
            for one in samples
        ]
        lines.append([kind.replace("_", " "), *cells])
    lines.append([f"false alarms in {rounds}", *(str(alarms.get(one, 0)) for one in samples)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(samples) + 1)]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    total = len(judged)
    rows.append(
        f"{total} damaged checkpoints: {sum(alone.values())} found alone, {sum(recorded.values())} with a record"
    )
    return "\n".join(rows)


def _percent(part: int, whole: int) -> str:
    """Rounded down: 100 means all."""
    return str(100 * part // whole) if whole else "-"
