"""Clients of a network file system with the caches that nfs(5) documents, over one real directory that is the server.

For REMEMBERED seconds a client believes what it saw: names and that there are none (`lookupcache=all`), attributes, and
listings. Opening a file asks the server anew (close-to-open). A change that a client makes in a directory ends what it
remembered of that directory's names, as Linux does when the server's answer tells another state than it knew. Requests
whose answer was lost are repeated, and the repetition is answered as if somebody else had done the work.

Stands in for the module `os` of sweeprun_volume.operations; which client calls is told by `as_client`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sweeprun_volume import operations
from sweeprun_volume.clock import Clock

REMEMBERED = 60.0


@dataclass
class Client:
    names: dict[tuple[int, str], tuple[float, os.stat_result | None]] = field(default_factory=dict)
    """(directory, name) -> when it was asked, and what was there."""
    listings: dict[int, tuple[float, list[Listed]]] = field(default_factory=dict)

    def changed(self, directory: int) -> None:
        self.listings.pop(directory, None)
        for key in [key for key in self.names if key[0] == directory]:
            del self.names[key]


class Listed:
    """An os.DirEntry that stays what it was."""

    def __init__(self, entry: os.DirEntry[str]) -> None:
        self.name = entry.name
        self._link, self._directory = entry.is_symlink(), entry.is_dir(follow_symlinks=False)
        self._file = entry.is_file(follow_symlinks=False)

    def is_symlink(self) -> bool:
        return self._link

    def is_dir(self, *, follow_symlinks: bool) -> bool:
        return self._directory

    def is_file(self, *, follow_symlinks: bool) -> bool:
        return self._file


class NetworkFileSystem:
    def __init__(self) -> None:
        self.now = 0.0
        self.repeated: set[str] = set()
        """Kinds of requests whose answer is lost each time: link, rename, unlink, rmdir, mkdir."""
        self.stale = 0
        """So many calls of open from now on find a stale handle."""
        self._clients: dict[str, Client] = {}
        self._acting = Client()
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> NetworkFileSystem:
        self._patch.setattr(operations, "os", self)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def act_as(self, name: str) -> None:
        """Calls from now on are this client's."""
        self._acting = self._clients.setdefault(name, Client())

    @contextmanager
    def as_client(self, name: str) -> Iterator[None]:
        before, self._acting = self._acting, self._clients.setdefault(name, Client())
        try:
            yield
        finally:
            self._acting = before

    def clock(self) -> Clock:
        def sleep(seconds: float) -> None:
            self.now += seconds

        return Clock(monotonic=lambda: self.now, sleep=sleep)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    # -- looking ---------------------------------------------------------------------------------------------------

    def stat(self, name: str, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        if dir_fd is None:
            return os.stat(name, follow_symlinks=follow_symlinks)
        found = self._lookup(dir_fd, name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return found

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is None:
            return os.open(path, flags, mode)
        if self.stale:
            self.stale -= 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
        if flags & os.O_CREAT:
            descriptor = os.open(path, flags, mode, dir_fd=dir_fd)
            self._acting.changed(_number(dir_fd))
            return descriptor
        if self._lookup(dir_fd, path) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        descriptor = os.open(path, flags, mode, dir_fd=dir_fd)
        if not flags & os.O_DIRECTORY:  # close-to-open
            self._acting.names[_number(dir_fd), path] = (self.now, os.fstat(descriptor))
        return descriptor

    def scandir(self, descriptor: int) -> Any:
        directory = _number(descriptor)
        asked, found = self._acting.listings.get(directory, (-REMEMBERED, []))
        if self.now - asked >= REMEMBERED:
            with os.scandir(descriptor) as listing:
                found = [Listed(entry) for entry in listing]
            self._acting.listings[directory] = (self.now, found)
        return _Listing(found)

    def _lookup(self, descriptor: int, name: str) -> os.stat_result | None:
        key = (_number(descriptor), name)
        asked, found = self._acting.names.get(key, (-REMEMBERED, None))
        if self.now - asked >= REMEMBERED:
            try:
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                found = None
            self._acting.names[key] = (self.now, found)
        return found

    # -- changing --------------------------------------------------------------------------------------------------

    def link(self, source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool) -> None:
        try:
            self._twice(
                "link",
                lambda: os.link(
                    source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks
                ),
            )
        finally:
            self._acting.changed(_number(dst_dir_fd))

    def rename(self, source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        self._twice("rename", lambda: os.rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd))
        self._acting.changed(_number(src_dir_fd))
        self._acting.changed(_number(dst_dir_fd))

    def unlink(self, name: str, *, dir_fd: int) -> None:
        self._twice("unlink", lambda: os.unlink(name, dir_fd=dir_fd))
        self._acting.changed(_number(dir_fd))

    def rmdir(self, name: str, *, dir_fd: int) -> None:
        self._twice("rmdir", lambda: os.rmdir(name, dir_fd=dir_fd))
        self._acting.changed(_number(dir_fd))

    def mkdir(self, name: str, mode: int = 0o777, *, dir_fd: int) -> None:
        try:
            self._twice("mkdir", lambda: os.mkdir(name, mode, dir_fd=dir_fd))
        finally:
            self._acting.changed(_number(dir_fd))

    def _twice(self, kind: str, request: Any) -> None:
        request()
        if kind in self.repeated:
            request()


class _Listing:
    def __init__(self, found: list[Listed]) -> None:
        self._found = found

    def __enter__(self) -> Iterator[Listed]:
        return iter(self._found)

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


def _number(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino


def leave_removed_but_open(directory: Path) -> Path:
    """What NFS makes of a file that is removed while somebody has it open."""
    path = directory / ".nfs000000000001a2b300000001"
    path.write_bytes(b"still open")
    return path
