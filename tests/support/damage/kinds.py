"""Ways in which a checkpoint on a volume is damaged: by disks, by crashes, by people, and by those who mean harm.

Each kind changes a copy in place and leaves its times as they were, as a disk would do. It says whether it could: a
checkpoint that is one file has no shard to lose.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

PAGE = 4096


@dataclass(frozen=True)
class Sample:
    """Checkpoints of one format and one shape: a file each, or a directory each."""

    name: str
    here: Path
    later: Path
    """Of the same run, at another step."""
    other: Path
    """Of another run, at the same step."""
    earlier_epoch: Path | None
    """Of the same run and step, committed in another epoch; only the own format knows of any."""
    metadata: tuple[str, ...]
    """Files that say what belongs to the checkpoint; the file itself where it is one."""


Kind = Callable[[Random, Path, Sample], bool]


def files_of(place: Path) -> list[Path]:
    """Regular files, links not followed."""
    if not place.is_dir() or place.is_symlink():
        return [place]
    return sorted(path for path in place.rglob("*") if path.is_file() and not path.is_symlink())


def _twin(place: Path, path: Path, of: Path) -> Path:
    """The file of another sample that stands where `path` does."""
    return of if path == place else of / path.relative_to(place)


def _any(random: Random, place: Path) -> Path:
    """A file that holds something."""
    return random.choice([path for path in files_of(place) if path.stat().st_size])


def _largest(place: Path) -> Path:
    return max(files_of(place), key=lambda path: (path.stat().st_size, path.name))


def _metadata(random: Random, place: Path, sample: Sample) -> Path:
    return place / random.choice(sample.metadata) if place.is_dir() else place


def _change(path: Path, change: Callable[[bytearray], bytes | bytearray]) -> None:
    found = path.stat()
    path.write_bytes(change(bytearray(path.read_bytes())))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _replace(path: Path, data: bytes) -> bool:
    _change(path, lambda _: data)
    return True


# -- what disks and crashes do -----------------------------------------------------------------------------------------


def a_few_bytes_short(random: Random, place: Path, sample: Sample) -> bool:
    path = _largest(place)
    cut = random.randint(1, 100)
    _change(path, lambda data: data[:-cut])
    return True


def cut_off_anywhere(random: Random, place: Path, sample: Sample) -> bool:
    path = _largest(place)
    _change(path, lambda data: data[: random.randrange(1, len(data))])
    return True


def an_empty_file(random: Random, place: Path, sample: Sample) -> bool:
    path = _any(random, place)
    return _replace(path, b"")


def a_bit_in_the_data(random: Random, place: Path, sample: Sample) -> bool:
    def flip(data: bytearray) -> bytearray:
        data[random.randrange(len(data) // 10, len(data) * 6 // 10)] ^= 1 << random.randrange(8)
        return data

    _change(_largest(place), flip)
    return True


def a_bit_in_the_metadata(random: Random, place: Path, sample: Sample) -> bool:
    def flip(data: bytearray) -> bytearray:
        if place.is_dir():
            at = random.randrange(len(data))
        elif data[:2] == b"PK":  # the archive's directory, at the end
            at = random.randrange(data.rindex(b"PK\x01\x02"), len(data))
        else:  # the header, at the start
            at = random.randrange(8 + int.from_bytes(data[:8], "little"))
        data[at] ^= 1 << random.randrange(8)
        return data

    _change(_metadata(random, place, sample), flip)
    return True


def a_page_of_zeros(random: Random, place: Path, sample: Sample) -> bool:
    def zero(data: bytearray) -> bytearray:
        at = random.randrange(max(1, len(data) // PAGE)) * PAGE
        data[at : at + PAGE] = bytes(len(data[at : at + PAGE]))
        return data

    _change(_largest(place), zero)
    return True


def a_sparse_hole(random: Random, place: Path, sample: Sample) -> bool:
    path = _largest(place)
    found, data = path.stat(), path.read_bytes()
    begin = random.randrange(len(data) - 512)
    end = random.randrange(begin + 1, len(data) + 1)
    with path.open("wb") as target:
        target.write(data[:begin])
        target.seek(end)
        target.write(data[end:])
        target.truncate(len(data))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    return True


def a_lost_tail(random: Random, place: Path, sample: Sample) -> bool:
    def lose(data: bytearray) -> bytearray:
        at = random.randrange(len(data))
        data[at:] = bytes(len(data) - at)
        return data

    _change(_largest(place), lose)
    return True


def trailing_garbage(random: Random, place: Path, sample: Sample) -> bool:
    path = _any(random, place)
    _change(path, lambda data: data + random.randbytes(random.randint(1, 5000)))
    return True


def trailing_zeros(random: Random, place: Path, sample: Sample) -> bool:
    path = _any(random, place)
    _change(path, lambda data: data + bytes(random.choice([1, 22, PAGE, 100_000])))
    return True


def overwritten_in_part(random: Random, place: Path, sample: Sample) -> bool:
    """A second save into the same place was cut off: what it had written, up to nine tenths, then what was there."""
    path = _largest(place)
    new = _twin(place, path, sample.later).read_bytes()

    def overwrite(data: bytearray) -> bytearray:
        at = random.randrange(1, min(len(data), len(new)) * 9 // 10)
        return bytearray(new[:at]) + data[at:]

    _change(path, overwrite)
    return True


# -- what belongs to something else ------------------------------------------------------------------------------------


def a_missing_file(random: Random, place: Path, sample: Sample) -> bool:
    if not place.is_dir():
        return False
    random.choice(files_of(place)).unlink()
    return True


def a_file_of_another_step(random: Random, place: Path, sample: Sample) -> bool:
    return _one_of(random, place, sample.later)


def a_file_of_another_run(random: Random, place: Path, sample: Sample) -> bool:
    return _one_of(random, place, sample.other)


def a_file_of_another_epoch(random: Random, place: Path, sample: Sample) -> bool:
    return sample.earlier_epoch is not None and _one_of(random, place, sample.earlier_epoch)


def all_of_another_epoch(random: Random, place: Path, sample: Sample) -> bool:
    return sample.earlier_epoch is not None and _all_of(place, sample.earlier_epoch)


def _one_of(random: Random, place: Path, of: Path) -> bool:
    if not place.is_dir():
        return False
    path = random.choice(files_of(place))
    twin = _twin(place, path, of)
    return twin.exists() and _replace(path, twin.read_bytes())


def stale_metadata(random: Random, place: Path, sample: Sample) -> bool:
    if not place.is_dir():
        return False
    path = _metadata(random, place, sample)
    return _replace(path, _twin(place, path, sample.later).read_bytes())


def all_of_another_step(random: Random, place: Path, sample: Sample) -> bool:
    return _all_of(place, sample.later)


def all_of_another_run(random: Random, place: Path, sample: Sample) -> bool:
    return _all_of(place, sample.other)


def _all_of(place: Path, of: Path) -> bool:
    for path in files_of(place):
        twin = _twin(place, path, of)
        if not twin.exists():
            return False
        _replace(path, twin.read_bytes())
    return True


def swapped_files(random: Random, place: Path, sample: Sample) -> bool:
    files = files_of(place)
    if len(files) < 2:
        return False
    one, other = random.sample(files, 2)
    first, second = one.read_bytes(), other.read_bytes()
    return _replace(one, second) and _replace(other, first)


def an_extra_file(random: Random, place: Path, sample: Sample) -> bool:
    if not place.is_dir():
        return False
    data = [path for path in files_of(place) if path.name not in sample.metadata]
    path = random.choice(data)
    digits = [at for at, character in enumerate(path.name) if character.isdigit()]
    name = f"{path.name[: digits[0]]}77{path.name[digits[0] + 1 :]}" if digits else f"more-{path.name}"
    shutil.copyfile(path, path.with_name(name))
    return True


def another_size_with_the_right_head(random: Random, place: Path, sample: Sample) -> bool:
    path = _largest(place)

    def change(data: bytearray) -> bytearray:
        at = random.randrange(8, len(data))
        return data[:at] + random.randbytes(random.choice([1, 100, 10_000])) + data[at:]

    _change(path, change)
    return True


# -- what is no file, and what lies about itself -----------------------------------------------------------------------


def a_link_in_place_of_a_file(random: Random, place: Path, sample: Sample) -> bool:
    path = random.choice(files_of(place))
    target = _twin(place, path, sample.here).resolve()
    path.unlink()
    path.symlink_to(target)
    return True


def a_pipe_in_place_of_a_file(random: Random, place: Path, sample: Sample) -> bool:
    path = random.choice(files_of(place))
    path.unlink()
    os.mkfifo(path)
    return True


def a_directory_in_place_of_a_file(random: Random, place: Path, sample: Sample) -> bool:
    path = random.choice(files_of(place))
    path.unlink()
    path.mkdir()
    return True


def an_absurd_number(random: Random, place: Path, sample: Sample) -> bool:
    """Eight bytes of a count, an offset or a size say the most that they can."""

    def lie(data: bytearray) -> bytearray:
        if place.is_dir():
            at = random.randrange(max(1, len(data) - 8))
        elif data[:2] == b"PK":
            at = random.randrange(data.rindex(b"PK\x01\x02"), len(data) - 8)
        else:
            at = random.randrange(8 + int.from_bytes(data[:8], "little"))
        data[at : at + 8] = b"\xff" * len(data[at : at + 8])
        return data

    _change(_metadata(random, place, sample), lie)
    return True


KINDS: tuple[Kind, ...] = (
    a_few_bytes_short,
    cut_off_anywhere,
    an_empty_file,
    a_bit_in_the_data,
    a_bit_in_the_metadata,
    a_page_of_zeros,
    a_sparse_hole,
    a_lost_tail,
    trailing_garbage,
    trailing_zeros,
    overwritten_in_part,
    a_missing_file,
    a_file_of_another_step,
    a_file_of_another_run,
    a_file_of_another_epoch,
    stale_metadata,
    all_of_another_step,
    all_of_another_run,
    all_of_another_epoch,
    swapped_files,
    an_extra_file,
    another_size_with_the_right_head,
    a_link_in_place_of_a_file,
    a_pipe_in_place_of_a_file,
    a_directory_in_place_of_a_file,
    an_absurd_number,
)
