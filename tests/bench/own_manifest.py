"""Validating every byte of a checkpoint with a manifest, against plain reading of the same files, cached and not."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sweeprun_protocol.layout import MANIFEST, RunLayout, step_name
from sweeprun_protocol.manifest import CHUNK, Manifest
from sweeprun_protocol.reasons import Level
from sweeprun_volume.clock import Clock, Deadline
from sweeprun_volume.forked import may_fork
from sweeprun_volume.formats import Context
from sweeprun_volume.formats.chunks import Plan
from sweeprun_volume.formats.contents import read_contents, threads_for
from sweeprun_volume.formats.own import OwnFormat
from sweeprun_volume.hashing import PIECE_BYTES, aligned_buffer
from sweeprun_volume.operations import Volume

from .measuring import Bench, Row, write_random

RUN = "run-1"
FILES = 4


def measure(bench: Bench) -> Iterator[Row]:
    size = bench.mib("READ", 2048)
    context = full(bench.place)
    path = write_checkpoint(context, step=1, size=size)
    files = sorted((bench.place / path).glob("*.pt"))
    threads = threads_for([_plan(file, bench.place, bench.place) for file in files])
    judge = partial(OwnFormat().check, context, path, step=1, epoch=1)
    read = partial(read_plainly, files, threads=threads)
    found = bench.ratio(judge, read)
    how = f"{threads} threads each" if may_fork() else "this process has threads, so nothing is mapped"
    name = f"validation of {size >> 20} MiB in the page cache, of the speed of reading"
    yield Row.at_least(name, found.speedup * 100, 85, "%", f"{found.rates(size)}, {how}")
    found = bench.ratio(judge, read, before=partial(_forget, files))
    name = f"validation of {size >> 20} MiB from the disk, of the speed of reading"
    yield Row.at_least(name, found.speedup * 100, 95, "%", found.rates(size))


def _forget(files: list[Path]) -> None:
    """Nothing of them stays in the page cache."""
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def full(root: Path, *, run_id: str = RUN) -> Context:
    return Context(Volume(str(root)), RunLayout(""), run_id, Level.FULL, Deadline.after(3600, Clock()))


def write_checkpoint(context: Context, *, step: int, size: int) -> str:
    """Of the own format, in FILES files; its path."""
    path = step_name(step, 1)
    place = Path(context.volume.absolute(path))
    place.mkdir()
    for number in range(FILES):
        write_random(place / f"part-{number}.pt", size // FILES)
    write_manifest(context, place, epoch=1, step=step)
    return path


def write_manifest(context: Context, place: Path, *, epoch: int, step: int) -> None:
    """Of the files that are there."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    contents = read_contents(context, [_plan(file, place, Path(context.volume.root)) for file in files])
    manifest = Manifest(
        run_id=context.run_id,
        epoch=epoch,
        step=step,
        world_size=1,
        algorithm=contents.algorithm,
        files=contents.files,
        resumable=True,
    )
    (place / MANIFEST).write_bytes(manifest.encode())


def _plan(file: Path, place: Path, root: Path) -> Plan:
    found = file.stat()
    return Plan(str(file.relative_to(root)), str(file.relative_to(place)), found.st_size, found.st_mtime_ns)


def read_plainly(files: list[Path], *, threads: int) -> None:
    """Into one small buffer a thread, chunk by chunk as validation does it, and nothing done with the bytes."""
    chunks = iter([(file, at) for file in files for at in range(0, file.stat().st_size, CHUNK)])
    lock = threading.Lock()

    def work() -> None:
        buffer = aligned_buffer(PIECE_BYTES)
        while True:
            with lock:
                chunk = next(chunks, None)
            if chunk is None:
                return
            file, at = chunk
            with file.open("rb", buffering=0) as stream:
                end = at + CHUNK
                while at < end:
                    count = os.preadv(stream.fileno(), [buffer], at)
                    if not count:
                        break
                    at += count

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
