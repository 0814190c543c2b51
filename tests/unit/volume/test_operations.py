"""The one place that touches the file system: what must happen once does, is durable, and leads nowhere else."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile

import pytest

from support.volume_sweep import make_request
from sweeprun_protocol.reasons import BlockedReason, Outcome
from sweeprun_volume.errors import TooManyEntriesError, UnsafeEntryError, VolumeError
from sweeprun_volume.operations import MAX_TREE_DEPTH, Volume


def traced(root):
    trace = []
    return Volume(str(root), before=lambda operation, path: trace.append(operation)), trace


def failing(code):
    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    return fail


def test_what_is_published_is_whole_and_durable_before_it_has_its_name(tmp_path):
    volume, trace = traced(tmp_path)
    assert volume.publish("record", b"one")
    assert trace == ["create", "write", "fsync", "link", "unlink", "fsync-directory"]
    assert os.listdir(tmp_path) == ["record"]


def test_the_second_to_publish_loses_and_changes_nothing(tmp_path):
    volume = Volume(str(tmp_path))
    assert volume.publish("record", b"one")
    assert not volume.publish("record", b"two")
    assert volume.publish("record", b"one"), "the same words are ours, as after a death"
    assert (tmp_path / "record").read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["record"]


def test_a_link_that_was_made_though_the_answer_says_otherwise_is_ours(tmp_path, monkeypatch):
    """A network file system repeats a request whose answer was lost, and then finds its own work."""
    link = os.link

    def twice(*arguments, **options):
        link(*arguments, **options)
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", twice)
    assert Volume(str(tmp_path)).publish("record", b"one")


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_links_is_told_as_such(code, tmp_path, monkeypatch, sweep):
    monkeypatch.setattr(os, "link", failing(code))
    with pytest.raises(VolumeError) as error:
        Volume(str(tmp_path)).publish("record", b"one")
    assert error.value.reason is BlockedReason.NO_EXCLUSIVE_CREATE
    assert os.listdir(tmp_path) == []
    report = sweep.ask(make_request())
    assert (report.outcome, report.blocked) == (Outcome.BLOCKED, BlockedReason.NO_EXCLUSIVE_CREATE)


def test_links_that_replace_are_noticed_by_the_probe(sweep, monkeypatch):
    def replacing(source, target, *, src_dir_fd, dst_dir_fd, follow_symlinks):
        os.rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        os.close(os.open(source, os.O_CREAT | os.O_WRONLY, dir_fd=src_dir_fd))

    monkeypatch.setattr(os, "link", replacing)
    assert sweep.ask(make_request()).blocked is BlockedReason.NO_EXCLUSIVE_CREATE


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, BlockedReason.NOT_WRITABLE),
        (errno.EDQUOT, BlockedReason.NOT_WRITABLE),
        (errno.EROFS, BlockedReason.NOT_WRITABLE),
        (errno.EIO, BlockedReason.IO_ERROR),
        (errno.ESTALE, BlockedReason.IO_ERROR),
    ],
)
def test_a_volume_that_takes_no_bytes_is_blocked_and_keeps_no_temporary_file(code, reason, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", failing(code))
    with pytest.raises(VolumeError) as error:
        Volume(str(tmp_path)).publish("record", b"one")
    assert error.value.reason is reason
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_volume_that_we_may_not_write_is_told_with_both_users(tmp_path, sweep):
    tmp_path.chmod(0o755)
    for parent in itertools.takewhile(lambda path: str(path) != tempfile.gettempdir(), tmp_path.parents):
        parent.chmod(0o755)
    os.seteuid(65534)
    try:
        report = sweep.ask(make_request())
    finally:
        os.seteuid(0)
    assert report.blocked is BlockedReason.NOT_WRITABLE
    assert "owned by uid 0" in report.message
    assert "runs as uid 65534" in report.message
    assert "fsGroup" in report.message


@pytest.mark.parametrize("path", ["link/file", "link", "directory/../../x", "fifo", "directory"])
def test_nothing_is_read_through_a_link_nor_from_what_is_no_file(path, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "directory").mkdir(parents=True)
    (root / "link").symlink_to(outside)
    os.mkfifo(root / "fifo")
    with pytest.raises(UnsafeEntryError):
        Volume(str(root)).read(path, limit=100)


def test_nothing_is_written_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside)
    volume = Volume(str(root))
    for change in (
        lambda: volume.publish("link/x", b""),
        lambda: volume.replace_atomically("link/x", b""),
        lambda: volume.make_directories("link/x"),
    ):
        with pytest.raises(UnsafeEntryError):
            change()
    assert os.listdir(outside) == []


def test_a_record_larger_than_any_is_not_read(tmp_path):
    (tmp_path / "record").write_bytes(b"x" * 101)
    with pytest.raises(UnsafeEntryError, match="more than the 100 allowed"):
        Volume(str(tmp_path)).read("record", limit=100)


def test_a_directory_with_more_entries_than_any_is_given_up(tmp_path):
    for number in range(4):
        (tmp_path / str(number)).touch()
    with pytest.raises(TooManyEntriesError):
        Volume(str(tmp_path)).entries("", limit=3)


def test_a_move_never_replaces(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    volume = Volume(str(tmp_path))
    assert not volume.move("a", "b")
    assert not volume.move("gone", "c")
    assert volume.move("a", "c")
    assert ((tmp_path / "b").read_bytes(), (tmp_path / "c").read_bytes()) == (b"b", b"a")


def test_a_new_file_is_durable_at_the_end_of_its_block_and_taken_names_are_refused(tmp_path):
    volume, trace = traced(tmp_path)
    with volume.create_file("file") as descriptor:
        volume.write(descriptor, memoryview(b"data"), "file")
    assert trace == ["create", "write", "fsync"]
    with pytest.raises(VolumeError), volume.create_file("file"):
        pass
    assert (tmp_path / "file").read_bytes() == b"data"


def test_an_error_while_checkpoints_are_read_is_blocked_and_no_verdict(sweep, monkeypatch):
    sweep.prepare()
    checkpoint = sweep.save(100)
    monkeypatch.setattr(os, "preadv", failing(errno.EIO))
    report = sweep.ask(sweep.next_request())
    assert (report.blocked, report.refused) == (BlockedReason.IO_ERROR, ())
    monkeypatch.undo()
    assert checkpoint.exists()
    assert not (sweep.directory() / "quarantine").exists()
    assert not (sweep.directory() / "epochs" / "2").exists()
    assert sweep.ask(sweep.next_request()).checkpoint.step == 100


def test_an_error_while_directories_are_listed_is_blocked_and_no_verdict(sweep, monkeypatch):
    sweep.prepare()
    sweep.save(100)
    monkeypatch.setattr(os, "scandir", failing(errno.EIO))
    assert sweep.ask(sweep.next_request()).blocked is BlockedReason.IO_ERROR


def always():
    return True


def make_tree(place, *, files=3, levels=3):
    place.mkdir()
    for number in range(files):
        (place / f"file-{number}").write_bytes(b"x")
    if levels > 1:
        make_tree(place / "below", files=files, levels=levels - 1)


@pytest.mark.parametrize("files", [0, 3, 2500])
def test_a_tree_is_removed_whatever_its_size(files, tmp_path):
    make_tree(tmp_path / "tree", files=files)
    assert Volume(str(tmp_path)).remove_tree("tree", go_on=always)
    assert os.listdir(tmp_path) == []
    assert Volume(str(tmp_path)).remove_tree("tree", go_on=always), "gone already"


def test_a_tree_is_removed_and_what_its_links_point_to_is_not(tmp_path):
    make_tree(tmp_path / "outside")
    make_tree(tmp_path / "tree")
    (tmp_path / "tree" / "below" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(tmp_path / "tree" / "fifo")
    volume = Volume(str(tmp_path))
    assert volume.remove_tree("tree", go_on=always)
    assert volume.remove_tree("link", go_on=always)
    assert os.listdir(tmp_path) == ["outside"]
    assert len(list((tmp_path / "outside").rglob("*"))) == 11


def test_no_tree_is_entered_through_a_link(tmp_path):
    make_tree(tmp_path / "outside")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeEntryError):
        Volume(str(tmp_path)).remove_tree("link/below", go_on=always)
    assert len(list((tmp_path / "outside").rglob("*"))) == 11


def test_removing_a_tree_stops_when_it_is_told_and_goes_on_later(tmp_path):
    make_tree(tmp_path / "tree")
    answers = iter([True, True, True, False])
    assert not Volume(str(tmp_path)).remove_tree("tree", go_on=lambda: next(answers))
    left = len(list((tmp_path / "tree").rglob("*")))
    assert 0 < left < 11
    assert Volume(str(tmp_path)).remove_tree("tree", go_on=always)


def test_what_another_process_removes_first_is_no_error(tmp_path):
    make_tree(tmp_path / "some")
    make_tree(tmp_path / "all")

    def takes(place):
        def before(operation, path):
            if operation == "unlink" and place.exists():
                shutil.rmtree(place) if place.is_dir() else place.unlink()

        return before

    file = tmp_path / "some" / "below" / "file-1"
    assert Volume(str(tmp_path), before=takes(file)).remove_tree("some", go_on=always)
    assert Volume(str(tmp_path), before=takes(tmp_path / "all")).remove_tree("all", go_on=always)
    assert os.listdir(tmp_path) == []


def test_a_tree_of_too_many_levels_is_left_and_one_of_as_many_as_allowed_is_not(tmp_path):
    make_tree(tmp_path / "deep", levels=MAX_TREE_DEPTH)
    assert Volume(str(tmp_path)).remove_tree("deep", go_on=always)
    make_tree(tmp_path / "deeper", levels=MAX_TREE_DEPTH + 1)
    with pytest.raises(UnsafeEntryError, match="by hand"):
        Volume(str(tmp_path)).remove_tree("deeper", go_on=always)


def test_what_cannot_be_removed_is_an_error(tmp_path, monkeypatch):
    make_tree(tmp_path / "tree")
    monkeypatch.setattr(os, "rmdir", failing(errno.ENOTEMPTY))
    with pytest.raises(VolumeError, match="not empty"):
        Volume(str(tmp_path)).remove_tree("tree", go_on=always)
