"""A disk that loses what was not made durable: what POSIX allows after a power loss, over a real directory.

Stands in for the module `os` of sweeprun_volume.operations and writes down every call that changes something. From that
record the tree is built as it could be found after a power loss before the k-th call:

- of a file, what was written since its last fsync is there whole, in part, or not at all;
- a name that was made, taken away or given to something else since the last fsync of its directory is there or not,
  each by itself, but never a later change of a name without the earlier ones;
- a rename is one change (journals of file systems and NFS servers keep it so, POSIX says nothing) and durable with the
  fsync of the directory that has the new name.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sweeprun_volume import operations


@dataclass(frozen=True)
class Call:
    kind: str
    """names, write or fsync."""
    names: tuple[tuple[int, str, int | None], ...] = ()
    """(directory, name, what has it afterwards), all at once."""
    node: int = 0
    """What is written to or synced; 0: names change."""
    data: bytes = b""
    says: str = ""


@dataclass
class Node:
    """A file or a directory, whatever its names."""

    kept: Path | None = None
    """Where a file from before the record lies, times and all."""
    directory: bool = False
    durable: bytes = b""
    written: bytes = b""
    entries: dict[str, int] = field(default_factory=dict)


class LossyDisk:
    """Between `__enter__` and `__exit__` all that changes below `root` is recorded."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[Call] = []
        self._before = root.parent / f"{root.name}.before"
        shutil.rmtree(self._before, ignore_errors=True)
        shutil.copytree(root, self._before)
        self._numbers: dict[int, int] = {}
        self._fresh = itertools.count(1)
        self._directories: dict[int, bool] = {}
        self._first: dict[int, Node] = {}
        self._known(root, self._before)
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> LossyDisk:
        self._patch.setattr(operations, "os", self)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    # -- what is recorded ------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor = os.open(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL, "what was there before cannot be told"
            assert dir_fd is not None
            self._names((self._of(dir_fd), path, self._new(descriptor)), says=f"create {path}")
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        written = os.write(descriptor, data)
        call = Call("write", node=self._of(descriptor), data=bytes(data[:written]))
        last = self.calls[-1]
        if last.kind == "write" and last.node == call.node:  # a loss between the two leaves a part of both together
            call = replace(call, data=self.calls.pop().data + call.data)
        self.calls.append(call)
        return written

    def fsync(self, descriptor: int) -> None:
        self.calls.append(Call("fsync", node=self._of(descriptor)))

    def link(self, source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool) -> None:
        os.link(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
        self._names((self._of(dst_dir_fd), target, self._at(target, dst_dir_fd)), says=f"link {target}")

    def unlink(self, name: str, *, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)
        self._names((self._of(dir_fd), name, None), says=f"unlink {name}")

    def rmdir(self, name: str, *, dir_fd: int) -> None:
        os.rmdir(name, dir_fd=dir_fd)
        self._names((self._of(dir_fd), name, None), says=f"rmdir {name}")

    def mkdir(self, name: str, mode: int = 0o777, *, dir_fd: int) -> None:
        os.mkdir(name, mode, dir_fd=dir_fd)
        made = os.open(name, os.O_RDONLY, dir_fd=dir_fd)
        self._names((self._of(dir_fd), name, self._new(made)), says=f"mkdir {name}")
        os.close(made)

    def rename(self, source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        node = self._at(source, src_dir_fd)
        os.rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        # the directory of the new name first: its fsync makes both durable
        self._names((self._of(dst_dir_fd), target, node), (self._of(src_dir_fd), source, None), says=f"rename {target}")

    def _names(self, *names: tuple[int, str, int | None], says: str) -> None:
        self.calls.append(Call("names", names=names, says=says))

    def _of(self, descriptor: int) -> int:
        return self._numbers[os.fstat(descriptor).st_ino]

    def _at(self, name: str, directory: int) -> int:
        return self._numbers[os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino]

    def _new(self, descriptor: int) -> int:
        found = os.fstat(descriptor)
        number = next(self._fresh)
        self._numbers[found.st_ino] = number  # the file system may use the number of a removed file again
        self._directories[number] = stat.S_ISDIR(found.st_mode)
        return number

    def _known(self, place: Path, copy: Path) -> int:
        number = next(self._fresh)
        self._numbers[place.lstat().st_ino] = number
        node = self._first[number] = Node(kept=copy, directory=place.is_dir())
        self._directories[number] = node.directory
        if node.directory:
            node.entries = {item.name: self._known(item, copy / item.name) for item in sorted(place.iterdir())}
        return number

    # -- what could be found afterwards ----------------------------------------------------------------------------

    def after_power_loss(self, at: int, target: Path, keep: Keep) -> str:
        """Build the tree at `target` as it could be after a power loss before call `at`. Returns what tells it apart
        from others."""
        nodes, pending = self._replayed(at)
        dropped: set[tuple[int, str]] = set()
        for call in pending:
            touched = {(directory, name) for directory, name, _ in call.names}
            if touched & dropped or not keep.name():
                dropped |= touched
            else:
                _apply(nodes, call)
        for number in sorted(nodes):
            node = nodes[number]
            if node.written != node.durable:
                node.durable = keep.data(node.durable, node.written)
        shutil.rmtree(target, ignore_errors=True)
        told: list[str] = []
        _build(nodes, 1, target, told, "")
        return "\n".join(told)

    def _replayed(self, at: int) -> tuple[dict[int, Node], list[Call]]:
        nodes = {number: Node(directory=directory) for number, directory in self._directories.items()}
        for number, node in self._first.items():
            nodes[number] = Node(node.kept, node.directory, entries=dict(node.entries))
        pending: list[Call] = []
        for call in self.calls[:at]:
            node = nodes[call.node] if call.node else None
            if node is None:
                pending.append(call)
            elif call.kind == "write":
                node.written += call.data
            elif node.directory:
                for early in [item for item in pending if item.names[0][0] == call.node]:
                    _apply(nodes, early)
                    pending.remove(early)
            else:
                node.durable = node.written
        return nodes, pending


class Keep:
    """What a power loss leaves of what was not durable."""

    def name(self) -> bool:
        return False

    def data(self, durable: bytes, written: bytes) -> bytes:
        return durable


class KeepNothing(Keep):
    """The most that may be lost."""


class KeepAll(Keep):
    """The process dies alone."""

    def name(self) -> bool:
        return True

    def data(self, durable: bytes, written: bytes) -> bytes:
        return written


class KeepSome(Keep):
    """By chance, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def name(self) -> bool:
        return self._random.random() < 0.5

    def data(self, durable: bytes, written: bytes) -> bytes:
        some = written[: self._random.randrange(len(written) + 1)]
        return self._random.choice((durable, some, written))


class KeepChosen(Keep):
    """One of all possible choices: of names there or not, of data all, half or none."""

    def __init__(self) -> None:
        self._chosen: list[tuple[int, int]] = []
        self._at = 0

    def _next(self, options: int) -> int:
        if self._at == len(self._chosen):
            self._chosen.append((0, options))
        choice = self._chosen[self._at][0]
        self._at += 1
        return choice

    def name(self) -> bool:
        return self._next(2) == 1

    def data(self, durable: bytes, written: bytes) -> bytes:
        return (durable, written[: len(written) // 2], written)[self._next(3)]

    def turn(self) -> bool:
        """To the next choice; False: all were made."""
        self._at = 0
        while self._chosen:
            choice, options = self._chosen.pop()
            if choice + 1 < options:
                self._chosen.append((choice + 1, options))
                return True
        return False


def every_choice(lose: Callable[[Keep], str]) -> Iterator[str]:
    keep = KeepChosen()
    while True:
        yield lose(keep)
        if not keep.turn():
            return


def _apply(nodes: dict[int, Node], call: Call) -> None:
    for directory, name, node in call.names:
        entries = nodes[directory].entries
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def _build(nodes: dict[int, Node], number: int, place: Path, told: list[str], path: str) -> None:
    node = nodes[number]
    if node.directory:
        place.mkdir()
        for name, below in sorted(node.entries.items()):
            inner = f"{path}/{name}"
            told.append(f"{inner} {below}")
            _build(nodes, below, place / name, told, inner)
    elif node.kept is not None:
        shutil.copy2(node.kept, place, follow_symlinks=False)
    else:
        told[-1] += f" {node.durable!r}"
        place.write_bytes(node.durable)
