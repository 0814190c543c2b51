"""A volume on which two could both win is refused before anything is claimed, with what to do.

What is seen: link(2) that is not there, that replaces, or that says it made what was there. What one client cannot see:
a server that lets two clients both make the same name (an O_EXCL, or a link, that is checked on the client alone).
"""

from __future__ import annotations

import errno
import os

import pytest

from support.volume_sweep import make_request
from sweeprun_protocol.reasons import BlockedReason, Outcome


def missing(code):
    def link(*arguments, **options):
        raise OSError(code, os.strerror(code))

    return link


def replacing(source, target, *, src_dir_fd, dst_dir_fd, follow_symlinks):
    os.unlink(target, dir_fd=dst_dir_fd) if target in os.listdir(dst_dir_fd) else None
    REAL(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)


def saying_so(source, target, *, src_dir_fd, dst_dir_fd, follow_symlinks):
    if target not in os.listdir(dst_dir_fd):
        REAL(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)


REAL = os.link
LINKS = {
    "EPERM": missing(errno.EPERM),
    "EOPNOTSUPP": missing(errno.EOPNOTSUPP),
    "ENOSYS": missing(errno.ENOSYS),
    "EMLINK": missing(errno.EMLINK),
    "EINVAL": missing(errno.EINVAL),
    "a link that replaces": replacing,
    "a link that says it made what was there": saying_so,
}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS.keys())
@pytest.mark.parametrize("begun", [False, True], ids=["a first prepare", "a later one"])
def test_a_volume_without_exclusive_creation_is_refused_before_anything_is_claimed(link, begun, sweep, monkeypatch):
    if begun:
        sweep.prepare()
        sweep.save(100)
    request = sweep.next_request() if begun else make_request()
    monkeypatch.setattr(os, "link", link)
    report = sweep.ask(request)
    assert (report.outcome, report.blocked) == (Outcome.BLOCKED, BlockedReason.NO_EXCLUSIVE_CREATE)
    assert "use a file system that creates a name exclusively" in report.message
    assert not list(sweep.root.rglob(".tmp-*"))
    assert not list(sweep.root.rglob("claims/000002.json"))
    assert begun or not (sweep.root / "sweep").exists()
    monkeypatch.undo()
    assert sweep.ask(request).outcome is (Outcome.RESUME if begun else Outcome.FRESH)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.ESTALE])
def test_a_link_that_fails_otherwise_is_no_verdict_on_the_file_system(code, sweep, monkeypatch):
    monkeypatch.setattr(os, "link", missing(code))
    assert sweep.ask(make_request()).blocked in (BlockedReason.IO_ERROR, BlockedReason.NOT_WRITABLE)
