"""The start check fails closed: what it does not prove starts nothing of the user's command."""

import hashlib
import json
import os
import signal

import pytest

from support.pod import sh, wait_until
from sweeprun_protocol.exit_codes import ExitCode

COMMAND = sh("echo ran > ran; exit 0")


def refused(pod, code, *words, **changes):
    """Run it; nothing of the command may have happened, and the log says why."""
    done = pod.run(COMMAND, environ=pod.environ(**changes))
    assert done.code == code
    assert not (pod.directory / "ran").exists()
    assert all(word in done.ours for word in words), done.stderr
    assert "Traceback" not in done.stderr
    assert not list(pod.run_directory.path.rglob("end-*"))
    assert pod.termination_log.read_bytes() == b""  # the kubelet fills it with the log's tail


def resuming(run, *, foreign=False):
    """The directory of a second attempt, which goes on from step 5 of the first."""
    checkpoint = run.save(5) if foreign else run.commit(5)
    assert run.prepare().checkpoint.step == 5
    return checkpoint


def test_the_first_pod_in_a_slot_starts_and_says_who_it_is(pod, run):
    assert pod.run(COMMAND).code == 0
    assert (pod.directory / "ran").exists()
    start = run.start_record()
    assert (start.epoch, start.slot, start.pod_uid) == (1, "master-0", "uid-master-0")
    assert (start.pod_name, start.node) == ("run-a0-master-0", "node-1")


@pytest.mark.parametrize("foreign", [False, True], ids=["own", "foreign"])
def test_a_resume_point_that_is_what_was_pinned_starts(pod, run, foreign):
    resuming(run, foreign=foreign)
    assert pod.run(COMMAND).code == 0


def test_a_pod_of_an_older_epoch_starts_nothing(pod, run):
    environ = pod.environ()
    run.claim(2)
    refused(pod, ExitCode.STALE_EPOCH, "epoch 2 was claimed", **environ)
    assert run.start_record() is None


def test_a_pod_whose_claim_does_not_show_starts_nothing(pod):
    refused(pod, ExitCode.VOLUME_UNUSABLE, "claim of epoch 7 does not show", SWEEPRUN_EPOCH="7")


def test_a_claim_that_shows_late_is_waited_for(pod, run):
    pod.start(COMMAND, environ=pod.environ(SWEEPRUN_EPOCH="2", SWEEPRUN_SETTLE_SECONDS="30"))
    run.prepare()
    assert pod.end().code == 0


def test_a_slot_that_another_pod_has_taken_starts_nothing(pod, run):
    assert pod.run(sh("exit 0"), environ=pod.environ(SWEEPRUN_POD_UID="first")).code == 0
    done = pod.run(COMMAND)
    assert done.code == ExitCode.ATTEMPT_REUSED
    assert "UID first" in done.ours
    assert not (pod.directory / "ran").exists()
    assert run.start_record().pod_uid == "first"


def test_the_same_pod_may_start_again(pod, run):
    pod.start(sh("echo ready > ready; while :; do sleep 0.02; done"))
    pod.trace("ready")
    pod.send(signal.SIGKILL)
    pod.end()
    assert pod.run(COMMAND).code == 0
    assert (pod.directory / "ran").exists()


def test_a_start_record_that_cannot_be_read_starts_nothing(pod, run):
    (run.path / "epochs" / "1").mkdir(exist_ok=True)
    (run.path / "epochs" / "1" / "start-master-0.json").write_text("{")
    refused(pod, ExitCode.VOLUME_UNUSABLE, "start-master-0.json")


def truncated(checkpoint):
    with (checkpoint / "model.pt").open("r+b") as file:
        file.truncate(3)


def with_another_manifest(checkpoint):
    manifest = checkpoint / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")


def without_a_file(checkpoint):
    (checkpoint / "model.pt").unlink()


def moved_away(checkpoint):
    checkpoint.rename(checkpoint.with_name("elsewhere"))


def replaced_by_a_link(checkpoint):
    moved_away(checkpoint)
    checkpoint.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (truncated, ExitCode.RESUME_POINT_LOST, "3 bytes"),
        (with_another_manifest, ExitCode.RESUME_POINT_LOST, "digest"),
        (without_a_file, ExitCode.RESUME_POINT_LOST, "model.pt is missing"),
        (moved_away, ExitCode.RESUME_POINT_LOST, "not there"),
        (replaced_by_a_link, ExitCode.VOLUME_UNUSABLE, "link"),
    ],
)
def test_a_checkpoint_of_ours_that_is_not_what_was_pinned_starts_nothing(pod, run, change, code, word):
    change(resuming(run))
    refused(pod, code, word)
    assert run.start_record() is None


def longer(file):
    file.write_bytes(file.read_bytes() + b"\0")


def written_again(file):
    before = file.stat()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def removed(file):
    file.unlink()


def unknown_to_prepare(file):
    decide_with(file, lambda text: json.dumps({"epoch": 2, "files": []}))


def seen_in_a_way_nobody_writes(file):
    decide_with(file, lambda text: text.replace('"mtimeNs":"', '"mtimeNs":"\\u00b2'))


def decide_with(file, change):
    """As if prepare had seen other foreign files, and said so in its decision."""
    epoch = file.parents[1] / "epochs/2"
    (seen,) = epoch.glob("foreign-*.json")
    changed = change(seen.read_text()).encode()
    name = f"foreign-{hashlib.sha256(changed).hexdigest()[:16]}.json"
    (epoch / name).write_bytes(changed)
    decision = epoch / "decision.json"
    decision.write_text(decision.read_text().replace(seen.name, name))


def seen_and_changed_afterwards(file):
    (seen,) = (file.parents[1] / "epochs/2").glob("foreign-*.json")
    seen.write_text(seen.read_text().replace('"epoch":2', '"epoch":3'))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (longer, ExitCode.RESUME_POINT_LOST),
        (written_again, ExitCode.RESUME_POINT_LOST),
        (removed, ExitCode.RESUME_POINT_LOST),
        (unknown_to_prepare, ExitCode.RESUME_POINT_LOST),
        (seen_in_a_way_nobody_writes, ExitCode.VOLUME_UNUSABLE),
        (seen_and_changed_afterwards, ExitCode.VOLUME_UNUSABLE),
    ],
)
def test_a_foreign_file_that_is_not_what_prepare_read_starts_nothing(pod, run, change, code):
    change(resuming(run, foreign=True))
    refused(pod, code)


def test_a_directory_that_is_not_mounted_starts_nothing(pod, run, tmp_path):
    environ = pod.environ(SWEEPRUN_RUN_DIR=str(tmp_path / "nowhere"))
    refused(pod, ExitCode.VOLUME_UNUSABLE, "nowhere", "No such file", **environ)


def test_a_volume_that_refuses_the_start_record_starts_nothing(pod, run):
    (run.path / "epochs" / "1").rename(run.path / "epochs" / "kept")
    (run.path / "epochs" / "1").write_text("a file in the place of a directory")
    refused(pod, ExitCode.VOLUME_UNUSABLE, "cannot be used")


@pytest.mark.parametrize(
    "changes",
    [
        {"SWEEPRUN_EPOCH": None},
        {"SWEEPRUN_POD_UID": None},
        {"SWEEPRUN_SLOTS": "worker-0"},
        {"SWEEPRUN_FENCE_SECONDS": "0"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_environment_that_contradicts_itself_starts_nothing(pod, changes):
    refused(pod, ExitCode.CONFIGURATION, next(iter(changes)), **changes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_before_the_command_exists_nothing_starts(pod, number):
    pod.start(COMMAND, environ=pod.environ(SWEEPRUN_EPOCH="9", SWEEPRUN_SETTLE_SECONDS="60"))
    # Python itself handles SIGINT from its start
    wait_until(lambda: all(handles(pod.process.pid, one) for one in (number, signal.SIGTERM)), "signals are handled")
    pod.send(number)
    pod.send(number)
    done = pod.end()
    assert done.code == 128 + number
    assert "Traceback" not in done.stderr
    assert not (pod.directory / "ran").exists()


def handles(pid, number):
    with open(f"/proc/{pid}/status") as status:
        caught = next(line for line in status if line.startswith("SigCgt:")).split()[1]
    return int(caught, 16) >> (number - 1) & 1


def test_each_slot_of_an_attempt_starts_once(new_pod, two):
    master, worker = new_pod("master-0", two), new_pod("worker-0", two)
    master.start(sh("exit 0"))
    assert worker.run(sh("exit 0")).code == 0
    assert master.end().code == 0
    assert {two.start_record(slot).pod_uid for slot in two.slots} == {"uid-master-0", "uid-worker-0"}
