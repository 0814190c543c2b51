"""What only a container has: process 1, a root file system nobody can write, another user, a volume of its own.

Namespaces of this machine stand for the container's; only root can make them.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from support.pod import Pod, sh, wait_until
from support.run_directory import RunDirectory
from sweeprun_protocol.exit_codes import ExitCode

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can make namespaces and become another user")

SYSTEM_PYTHON = os.path.realpath(sys.executable)
"""An environment's own may lie where only its owner can look."""
USER = 12345


@pytest.fixture
def program(pyz):
    return pyz


def as_process_1(pod):
    return ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *pod.entrypoint, "exec", "--"]


def child_of(pid):
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(found[0]) if found else None


ORPHANS = "for i in 1 2 3 4 5; do (sh -c 'exit 3' & ) ; done; sleep 0.5; grep -h '^State' /proc/[0-9]*/status; exit 4"


def test_as_process_1_it_reaps_what_the_command_leaves_behind(pod, run):
    done = pod.run(sh(ORPHANS), wrapper=as_process_1(pod))
    assert done.code == 4, done.stderr
    assert "State" in done.stdout
    assert "zombie" not in done.stdout
    assert run.end_record().exit_code == 4


def test_as_process_1_it_hands_on_a_signal_that_it_would_itself_ignore(pod, run):
    polite = "trap 'echo saved > saved; exit 0' TERM; echo $PPID > ready; while :; do sleep 0.02; done"
    pod.start(sh(polite), wrapper=as_process_1(pod))
    assert pod.trace("ready") == "1"
    os.kill(wait_until(lambda: child_of(pod.process.pid), "process 1 is there"), signal.SIGTERM)
    assert pod.end().code == 0
    assert pod.trace("saved") == "saved"
    assert run.end_record().told_to_stop is True


def with_mounts(pod, script):
    """`script` mounts, in a namespace of the pod's own; $VOLUME is the run directory."""
    line = f'{script} && exec "$@"'
    arguments = ["unshare", "--mount", "sh", "-ec", line, "sh", *pod.entrypoint, "exec", "--"]
    return ["env", f"VOLUME={pod.run_directory.path}", *arguments]


def test_a_root_file_system_that_nobody_can_write_is_enough(pod, run):
    script = f'mount --bind "$VOLUME" "$VOLUME" && mount --bind {pod.directory} {pod.directory}'
    done = pod.run(
        sh("touch /etc/x && exit 9; exit 4"), wrapper=with_mounts(pod, f"{script} && mount -o remount,ro,bind /")
    )
    assert done.code == 4, done.stderr
    assert done.ours == ""
    assert run.end_record().exit_code == 4


def test_a_volume_that_is_read_only_starts_nothing(pod, run):
    script = 'mount --bind "$VOLUME" "$VOLUME" && mount -o remount,ro,bind "$VOLUME"'
    done = pod.run(sh("echo ran > ran"), wrapper=with_mounts(pod, script))
    assert done.code == ExitCode.VOLUME_UNUSABLE
    assert "Read-only file system" in done.ours
    assert not (pod.directory / "ran").exists()
    assert run.start_record() is None


def test_a_volume_that_becomes_read_only_costs_the_end_record_and_not_the_exit_code(pod, run):
    script = 'mount --bind "$VOLUME" "$VOLUME"'
    line = f"mount -o remount,ro,bind {run.path}; exit 7"
    done = pod.run(sh(line), wrapper=with_mounts(pod, script))
    assert done.code == 7
    assert "could not be recorded" in done.ours
    assert "Read-only file system" in done.ours
    assert run.start_record() is not None
    assert run.end_record() is None


def test_a_disk_that_the_command_fills_costs_the_end_record_and_not_the_exit_code(pod, run):
    copy = 'cp -a "$VOLUME" $PWD/kept && mount -t tmpfs -o size=1m tmpfs "$VOLUME" && cp -a $PWD/kept/. "$VOLUME"'
    fill = f"dd if=/dev/zero of={run.path}/fills bs=4k 2>/dev/null; exit 7"
    done = pod.run(sh(fill), wrapper=with_mounts(pod, copy))
    assert done.code == 7
    assert "could not be recorded" in done.ours
    assert "No space left" in done.ours


def test_a_full_disk_starts_nothing(pod):
    copy = 'cp -a "$VOLUME" $PWD/kept && mount -t tmpfs -o size=1m tmpfs "$VOLUME" && cp -a $PWD/kept/. "$VOLUME"'
    full = f'{copy} && (dd if=/dev/zero of="$VOLUME/fills" bs=4k 2>/dev/null || true)'
    done = pod.run(sh("echo ran > ran"), wrapper=with_mounts(pod, full))
    assert done.code == ExitCode.VOLUME_UNUSABLE
    assert "No space left" in done.ours
    assert not (pod.directory / "ran").exists()


@pytest.fixture
def open_directory():
    """Below which every user may look, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def test_another_user_than_root_is_enough(pyz, open_directory):
    program = open_directory / "sweeprun.pyz"
    shutil.copy(pyz, program)
    run = RunDirectory(open_directory / "volume")
    work = open_directory / "work"
    work.mkdir()
    pod = Pod(program, run, work)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", open_directory], check=True)
    identity = [
        "setpriv",
        f"--reuid={USER}",
        f"--regid={USER}",
        "--clear-groups",
        "--no-new-privs",
        "--bounding-set=-all",
    ]
    done = pod.run(sh("id -u; exit 4"), wrapper=[*identity, SYSTEM_PYTHON, "-I", "-S", str(program), "exec", "--"])
    assert (done.code, done.stdout, done.ours) == (4, f"{USER}\n", "")
    assert run.end_record().exit_code == 4


def test_a_user_who_may_not_write_the_volume_is_told_who_it_is(pyz, open_directory):
    program = open_directory / "sweeprun.pyz"
    shutil.copy(pyz, program)
    pod = Pod(program, RunDirectory(open_directory / "volume"), open_directory)
    identity = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    done = pod.run(sh("exit 0"), wrapper=[*identity, SYSTEM_PYTHON, "-I", "-S", str(program), "exec", "--"])
    assert done.code == ExitCode.VOLUME_UNUSABLE
    assert str(USER) in done.ours
