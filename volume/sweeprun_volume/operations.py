"""The one place that touches the file system: every open, write, fsync, link, rename, mkdir and unlink is here.

Paths are relative to the volume's root and are walked one component at a time without following links, so that nothing
a tenant puts on the volume leads out of it. What must happen once is published by link(2), which fails where the name
exists on every file system that has it; rename does not.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Callable, Optional

from sweeprun_protocol.frozen import dataclass
from sweeprun_protocol.layout import split

from .errors import NOT_WRITABLE, TooManyEntriesError, UnsafeEntryError, VolumeError, no_exclusive_create, volume_error

TEMPORARY_PREFIX = ".tmp-"
MAX_ENTRIES = 100_000
"""Entries of one directory that are looked at before the volume is refused."""
MAX_TREE_DEPTH = 64
"""Directories inside each other that are removed as one tree: each costs an open descriptor."""
_BATCH = 1000
"""Names that are held at once while a directory is emptied."""

FILE = "file"
DIRECTORY = "directory"
LINK = "link"
OTHER = "other"

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_OPEN_DIRECTORY = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY


@dataclass(frozen=True)
class Entry:
    name: str
    kind: str
    """FILE, DIRECTORY, LINK or OTHER."""


@dataclass(frozen=True)
class Facts:
    """What tells that a file was written again without reading it."""

    kind: str
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True)
class Stamp:
    """As Facts, with the time of the last change of any kind, which nobody can set."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def _unobserved(operation: str, path: str) -> None:
    """Default observer."""


class Volume:
    """A directory tree. `before` is called with every changing operation before it is made."""

    def __init__(self, root: str, *, before: Callable[[str, str], None] = _unobserved) -> None:
        self.root = os.path.abspath(root)
        self._before = before
        self._lasting: set[str] = set()
        """Directories whose names are durable, as far as this object knows."""

    # -- reading ---------------------------------------------------------------------------------------------------

    def facts(self, path: str) -> Optional[Facts]:
        """None where there is nothing of this name. A link is told as a link."""
        with self._translated(path):
            try:
                with self._holder(path) as (directory, name):
                    return _facts(os.stat(name, dir_fd=directory, follow_symlinks=False))
            except FileNotFoundError:
                return None

    def stamp(self, path: str) -> Stamp:
        """Of a regular file, after it was opened. Raises FileNotFoundError, UnsafeEntryError."""
        with self.open_file(path) as (descriptor, _), self._translated(path):
            found = os.fstat(descriptor)
        return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def exists(self, path: str) -> bool:
        return self.facts(path) is not None

    def read(self, path: str, *, limit: int) -> Optional[bytes]:
        """Whole content, or None where absent.

        Raises:
            UnsafeEntryError: not a regular file, or larger than `limit` bytes.
        """
        try:
            with self.open_file(path) as (descriptor, facts), self._translated(path):
                if facts.size > limit:
                    raise UnsafeEntryError(path, f"{facts.size} bytes, more than the {limit} allowed")
                return _read_all(descriptor, limit + 1, path)
        except FileNotFoundError:
            return None

    @contextmanager
    def open_file(self, path: str) -> Iterator[tuple[int, Facts]]:
        """Descriptor of a regular file, for reading. Raises FileNotFoundError or UnsafeEntryError."""
        with self._translated(path), self._holder(path) as (directory, name):
            # looked at before it is opened: opening a device may already do something
            _require_file(os.stat(name, dir_fd=directory, follow_symlinks=False), path)
            descriptor = os.open(name, os.O_RDONLY | _OPEN, dir_fd=directory)
        try:
            with self._translated(path):
                opened = os.fstat(descriptor)
                _require_file(opened, path)
            yield descriptor, _facts(opened)
        finally:
            os.close(descriptor)

    def entries(self, path: str, *, limit: int = MAX_ENTRIES) -> list[Entry]:
        """Entries sorted by name; empty where the directory is absent. Raises TooManyEntriesError, UnsafeEntryError."""
        with self._translated(path):
            try:
                descriptor = self._open_directory(split(path), path)
            except FileNotFoundError:
                return []
            found: list[Entry] = []
            try:
                with os.scandir(descriptor) as listing:
                    for item in listing:
                        if len(found) >= limit:
                            raise TooManyEntriesError(path, limit)
                        found.append(Entry(item.name, _kind_of(item)))
            finally:
                os.close(descriptor)
        return sorted(found, key=lambda entry: entry.name)

    def read_at(self, descriptor: int, buffer: memoryview, offset: int, path: str) -> int:
        """Bytes read into `buffer`; 0 at the end."""
        with self._translated(path):
            return os.preadv(descriptor, [buffer], offset)

    def is_cached(self, descriptor: int, offset: int) -> bool:
        """Whether the byte at `offset` is in the page cache; False too where the file system does not tell (NFS)."""
        if not hasattr(os, "RWF_NOWAIT"):
            return False
        try:
            return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
        except OSError:  # EAGAIN, EOPNOTSUPP; whatever else there is, reading will tell
            return False

    def map_at(self, descriptor: int, offset: int, size: int) -> mmap.mmap:
        """Bytes of a file where they are, read-only; `offset` is a multiple of a page.

        For processes that may die alone: where the file shrinks or cannot be read, looking at them ends the process.

        Raises:
            OSError: the file system does not map.
            ValueError: the file ends before.
        """
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ, offset=offset)

    def absolute(self, path: str) -> str:
        return os.path.join(self.root, path)

    # -- changing --------------------------------------------------------------------------------------------------

    def publish(self, path: str, data: bytes) -> bool:
        """Make `data` appear under `path` once, whole and durable.

        Returns:
            True where it is there, by us now or identical from before; False where something else was there first.

        Raises:
            VolumeError: no room, no permission, I/O error, or a file system without exclusive creation.
        """
        with self._translated(path), self._holder(path) as (directory, name):
            temporary = self._write_temporary(directory, path, data)
            try:
                won = self._link(directory, temporary, name, path)
            except (OSError, VolumeError):
                self._remove_temporary(directory, temporary, path)
                raise
            self._remove_temporary(directory, temporary, path)
            self._sync(directory, path)
        return won or self._holds(path, data)

    def replace_atomically(self, path: str, data: bytes) -> None:
        """For the marker alone: it says who acts now, and the last writer is right."""
        with self._translated(path), self._holder(path) as (directory, name):
            temporary = self._write_temporary(directory, path, data)
            self._before("rename", path)
            self._rename(directory, temporary, directory, name, path)
            self._sync(directory, path)

    def make_directory(self, path: str) -> bool:
        """False where the name was taken already; it is durable in either case."""
        made = True
        with self._translated(path), self._holder(path) as (directory, name):
            self._before("mkdir", path)
            try:
                os.mkdir(name, 0o775, dir_fd=directory)
            except FileExistsError:
                made = False
            self._sync(directory, path)
        return made

    def make_directories(self, path: str) -> None:
        """Durable, whoever made them. Raises UnsafeEntryError where a part of the path is no directory."""
        made = ""
        for part in split(path):
            made = f"{made}/{part}" if made else part
            facts = self.facts(made)
            if facts is None:
                self.make_directory(made)
            elif facts.kind != DIRECTORY:
                raise UnsafeEntryError(made, f"a {facts.kind} in the place of a directory")
            elif made not in self._lasting:
                self.sync_name(made)
            self._lasting.add(made)

    def remove_file(self, path: str) -> bool:
        """False where it was gone already."""
        with self._translated(path):
            try:
                with self._holder(path) as (directory, name):
                    self._before("unlink", path)
                    os.unlink(name, dir_fd=directory)
                    self._sync(directory, path)
            except FileNotFoundError:
                return False
        return True

    def remove_directory(self, path: str) -> None:
        """Raises VolumeError where it is not empty."""
        with self._translated(path), self._holder(path) as (directory, name):
            self._before("rmdir", path)
            with suppress(FileNotFoundError):  # the repetition of a request that was done
                os.rmdir(name, dir_fd=directory)
            self._sync(directory, path)

    def remove_tree(self, path: str, *, go_on: Callable[[], bool]) -> bool:
        """Remove what has this name and all below it: links themselves, never what they point to.

        Not synced: for what may come back after a crash. Several processes may be at the same tree.

        Args:
            go_on: asked before every removal inside a directory.

        Returns:
            Whether all is gone; False where `go_on` said no before.

        Raises:
            UnsafeEntryError: more than MAX_TREE_DEPTH directories inside each other.
            VolumeError: what cannot be removed, as `.nfs*` files that somebody holds open. The rest may be gone.
        """
        with self._translated(path):
            try:
                with self._holder(path) as (directory, name):
                    return self._remove_below(directory, name, path, go_on, MAX_TREE_DEPTH)
            except FileNotFoundError:
                return True

    def move(self, source: str, target: str) -> bool:
        """Rename without replacing; durable. False where the source was gone or the target's name is taken."""
        with self._translated(source):
            try:
                with self._holder(source) as (directory, name), self._holder(target) as (to, new):
                    if _present(new, to):
                        return False
                    self._before("rename", source)
                    # a directory never replaces one that holds something; our targets are named for one epoch
                    self._rename(directory, name, to, new, target)
                    self._sync(to, target)
                    self._sync(directory, source)
            except FileNotFoundError:
                return False
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
        return True

    @contextmanager
    def create_file(self, path: str) -> Iterator[int]:
        """Descriptor of a new file; it is fsynced at the end of a block that raised nothing."""
        with self._translated(path):
            with self._holder(path) as (directory, name):
                self._before("create", path)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN
                descriptor = os.open(name, flags, 0o664, dir_fd=directory)
            try:
                yield descriptor
                self._before("fsync", path)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def write(self, descriptor: int, data: memoryview, path: str) -> None:
        with self._translated(path):
            self._before("write", path)
            _write_all(descriptor, data)

    def flush(self, descriptor: int, path: str) -> None:
        """Have storage take what was written so far. Not yet a promise: that is the fsync at the end of create_file."""
        with self._translated(path):
            os.fdatasync(descriptor)

    def sync_file(self, path: str) -> None:
        """Make a file durable that others wrote."""
        with self.open_file(path) as (descriptor, _), self._translated(path):
            self._before("fsync", path)
            os.fsync(descriptor)

    def sync_directory(self, path: str) -> None:
        with self._translated(path):
            descriptor = self._open_directory(split(path), path)
            try:
                self._sync(descriptor, path)
            finally:
                os.close(descriptor)

    def sync_name(self, path: str) -> None:
        """Make durable that this name is there. Whoever gave it may have died before it was."""
        with self._translated(path), self._holder(path) as (directory, _):
            self._sync(directory, path)

    def look_anew(self, path: str) -> None:
        """Forget what this client of a network file system remembers of the names in a directory.

        Names, and that there are none, are remembered for up to a minute (NFS) or longer; not beyond a change of the
        directory by the same client. Nothing happens where the directory is absent or must not be written.
        """
        with self._translated(path):
            try:
                descriptor = self._open_directory(split(path), path)
            except FileNotFoundError:
                return
            try:
                self._touch(descriptor, path)
            except OSError as error:
                if error.errno not in NOT_WRITABLE:
                    raise
            finally:
                os.close(descriptor)

    # -- parts -----------------------------------------------------------------------------------------------------

    def _open_directory(self, parts: list[str], path: str) -> int:
        try:
            descriptor = os.open(self.root, _OPEN_DIRECTORY)
        except OSError as error:  # absent as well: the mount is missing, and nothing may be concluded about the run
            raise volume_error(error, self.root) from error
        for part in parts:
            try:
                below = os.open(part, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise UnsafeEntryError(path, f"{part!r} is a link or no directory") from None
                raise
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor

    @contextmanager
    def _holder(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory that holds `path`, and the last name in it."""
        parts = split(path)
        if not parts or any(part in (".", "..") for part in parts):
            raise UnsafeEntryError(path, "is no name below the volume's root")
        descriptor = self._open_directory(parts[:-1], path)
        try:
            yield descriptor, parts[-1]
        finally:
            os.close(descriptor)

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise volume_error(error, path or self.root, detail=self._permissions(path)) from error

    def _permissions(self, path: str) -> str:
        """Who owns the nearest directory and who we are: what a person needs to put it right."""
        parts = split(path)
        while True:
            place = os.path.join(self.root, *parts)
            try:
                found = os.stat(place, follow_symlinks=False)
            except OSError:
                found = None
            if found is not None and stat.S_ISDIR(found.st_mode):
                break
            if not parts:
                return ""
            parts.pop()
        name = os.path.join(*parts) if parts else self.root
        return (
            f"directory {name} is owned by uid {found.st_uid} gid {found.st_gid} mode {stat.S_IMODE(found.st_mode):04o}"
            f", this process runs as uid {os.geteuid()} gid {os.getegid()}: set securityContext.fsGroup of the pods to"
            " a group that may write, or change the directory's owner"
        )

    def _holds(self, path: str, data: bytes) -> bool:
        facts = self.facts(path)
        return facts is not None and facts.size == len(data) and self.read(path, limit=len(data)) == data

    def _touch(self, directory: int, path: str) -> None:
        temporary = TEMPORARY_PREFIX + secrets.token_hex(8)
        self._before("create", path)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o664, dir_fd=directory))
        self._remove_temporary(directory, temporary, path)

    def _rename(self, directory: int, name: str, to: int, new: str, path: str) -> None:
        moved = os.stat(name, dir_fd=directory, follow_symlinks=False)
        try:
            os.rename(name, new, src_dir_fd=directory, dst_dir_fd=to)
        except FileNotFoundError:
            # a network file system may answer so to the repetition of a request that it had done
            self._touch(to, path)
            if not _is(moved, to, new):
                raise

    def _remove_temporary(self, directory: int, name: str, path: str) -> None:
        with suppress(FileNotFoundError):  # the repetition of a request that was done
            self._unlink(directory, name, path)

    def _write_temporary(self, directory: int, path: str, data: bytes) -> str:
        temporary = TEMPORARY_PREFIX + secrets.token_hex(8)
        self._before("create", path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN
        descriptor = os.open(temporary, flags, 0o664, dir_fd=directory)
        try:
            self._before("write", path)
            _write_all(descriptor, memoryview(data))
            self._before("fsync", path)
            os.fsync(descriptor)
        except OSError:
            self._remove_temporary(directory, temporary, path)
            raise
        finally:
            os.close(descriptor)
        return temporary

    def _remove_below(self, directory: int, name: str, path: str, go_on: Callable[[], bool], levels: int) -> bool:
        if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            self._unlink(directory, name, path)
            return True
        if levels == 0:
            raise UnsafeEntryError(path, f"more than {MAX_TREE_DEPTH} directories inside each other: remove it by hand")
        below = os.open(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        try:
            # listed anew until nothing is left: removing while a listing is read makes some file systems skip names
            while names := _first_names(below):
                for inner in names:
                    if not go_on():
                        return False
                    with suppress(FileNotFoundError):  # another process is at the same tree
                        if not self._remove_below(below, inner, path, go_on, levels - 1):
                            return False
        finally:
            os.close(below)
        self._before("rmdir", path)
        os.rmdir(name, dir_fd=directory)
        return True

    def _link(self, directory: int, temporary: str, name: str, path: str) -> bool:
        self._before("link", path)
        try:
            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            # a network file system may answer so to the repetition of a request that it had done
            return _is(os.stat(temporary, dir_fd=directory, follow_symlinks=False), directory, name)
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise no_exclusive_create(path, f"this file system has no link(2) ({error.strerror})") from error
            raise
        return True

    def _unlink(self, directory: int, name: str, path: str) -> None:
        self._before("unlink", path)
        os.unlink(name, dir_fd=directory)

    def _sync(self, directory: int, path: str) -> None:
        self._before("fsync-directory", path)
        try:
            os.fsync(directory)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems have no fsync of directories: nothing to do
                raise


def _facts(found: os.stat_result) -> Facts:
    return Facts(_kind(found.st_mode), found.st_size, found.st_mtime_ns, found.st_ino)


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return FILE
    if stat.S_ISDIR(mode):
        return DIRECTORY
    return LINK if stat.S_ISLNK(mode) else OTHER


def _kind_of(item: os.DirEntry[str]) -> str:
    if item.is_symlink():
        return LINK
    if item.is_dir(follow_symlinks=False):
        return DIRECTORY
    return FILE if item.is_file(follow_symlinks=False) else OTHER


def _first_names(directory: int) -> list[str]:
    with os.scandir(directory) as listing:
        return [item.name for item in itertools.islice(listing, _BATCH)]


def _require_file(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeEntryError(path, f"not a regular file but a {_kind(found.st_mode)}")


def _is(one: os.stat_result, directory: int, name: str) -> bool:
    try:
        other = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _present(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _read_all(descriptor: int, most: int, path: str) -> bytes:
    parts: list[bytes] = []
    left = most
    while left > 0:
        part = os.read(descriptor, min(left, 1 << 20))
        if not part:
            return b"".join(parts)
        parts.append(part)
        left -= len(part)
    raise UnsafeEntryError(path, "grew beyond its bound while it was read")


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        written = os.write(descriptor, data)
        data = data[written:]
