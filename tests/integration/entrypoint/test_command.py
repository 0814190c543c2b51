"""The command runs as it would without us: its exit code, its streams, its environment, its signals."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.pod import alive, python, sh, wait_until

OURS = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "SWEEPRUN_PROGRESS_SOCKET"}
WAITS = "while :; do sleep 0.02; done"


@pytest.fixture
def program(pyz):
    return pyz


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_the_commands(pod, run, code):
    assert pod.run(sh(f"exit {code}")).code == code
    assert run.end_record().exit_code == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_that_ended_the_command_is_told_as_a_shell_would(pod, run, number):
    assert pod.run(sh(f"kill -{number.value} $$")).code == 128 + number
    assert run.end_record().exit_code == 128 + number


def test_both_streams_and_stdin_are_the_commands_alone(pod):
    done = pod.start(sh("cat; echo err >&2; printf '\\303\\050'"), stdin=subprocess.PIPE, text=False)
    stdout, stderr = done.process.communicate(b"in\xff", timeout=15)
    assert (stdout, stderr) == (b"in\xff\303\050", b"err\n")


def test_nothing_is_said_about_an_undisturbed_command(pod):
    done = pod.run(sh("echo out"))
    assert (done.stdout, done.stderr) == ("out\n", "")


def test_the_command_sees_the_containers_environment_and_what_only_the_entrypoint_knows(pod):
    environ = pod.environ(LANG=None, LC_ALL=None)
    seen = json.loads(pod.run([sys.executable, "-I", "-S", "-c", DUMP], environ=environ).stdout)
    assert {name: value for name, value in seen.items() if name not in OURS} == environ
    assert seen["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "1"  # below the grace of 4 s


DUMP = """
import json
block = open("/proc/self/environ", "rb").read().split(b"\\0")
print(json.dumps(dict(item.decode().split("=", 1) for item in block if item)))
"""


def test_the_time_that_torchrun_gives_its_workers_may_be_set_by_the_user(pod):
    environ = pod.environ(TORCH_ELASTIC_SHUTDOWN_TIMEOUT="17")
    assert pod.run(sh("echo $TORCH_ELASTIC_SHUTDOWN_TIMEOUT"), environ=environ).stdout == "17\n"


def test_a_command_that_does_not_exist_ends_as_in_a_shell(pod, run):
    done = pod.run(["/nonexistent/train"])
    assert done.code == 127
    assert "/nonexistent/train cannot be started: No such file" in done.ours
    assert run.end_record().exit_code == 127


def test_a_command_that_cannot_be_executed_ends_as_in_a_shell(pod, run, tmp_path):
    script = tmp_path / "train.sh"
    script.write_text("exit 0\n")
    done = pod.run([str(script)])
    assert done.code == 126
    assert "cannot be started: Permission denied" in done.ours
    assert run.end_record().exit_code == 126


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_reaches_the_command_once_and_not_what_it_started(pod, run, number):
    name = number.name.removeprefix("SIG")
    worker = f"trap 'echo {name} >> worker; exit' {name}; echo ready > worker-ready; {WAITS}"
    command = f"""
    (trap - {name}; exec sh -c "{worker}") & worker=$!
    trap 'echo {name} >> got' {name}
    echo ready > ready
    until [ -e go ]; do sleep 0.02; done
    kill -0 $worker && echo alive; kill -9 $worker
    exit 5
    """
    pod.start(sh(command))
    pod.trace("ready")
    pod.trace("worker-ready")
    pod.send(number)
    assert pod.trace("got") == name
    (pod.directory / "go").touch()
    done = pod.end()
    assert (done.code, done.stdout) == (5, "alive\n")
    assert pod.trace("got") == name
    assert not (pod.directory / "worker").exists()
    assert run.end_record().told_to_stop is (number not in (signal.SIGUSR1, signal.SIGUSR2))


def test_a_signal_that_another_thread_receives_reaches_the_command_at_once(pod):
    """The kernel gives a process's signal to any of its threads, and the main one may be about to wait."""
    pod.start(python(TOLD))
    pod.trace("ready")
    wait_until(lambda: len(threads(pod.process.pid)) > 1, "the entrypoint watches")
    other = max(threads(pod.process.pid))
    assert ctypes.CDLL(None).tgkill(pod.process.pid, other, signal.SIGTERM) == 0
    assert pod.end().code == 7


TOLD = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("yes", file=open("ready", "w"), flush=True)
while True:
    signal.pause()
"""


def threads(pid):
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def test_a_signal_that_the_command_does_not_handle_ends_it(pod):
    pod.start(sh(f"echo ready > ready; {WAITS}"))
    pod.trace("ready")
    pod.send(signal.SIGTERM)
    assert pod.end().code == 128 + signal.SIGTERM


def test_what_the_command_leaves_behind_is_reaped(pod):
    orphan = "(sh -c 'echo $$ > orphan; until [ -e end ]; do sleep 0.02; done' &)"
    pod.start(sh(f"{orphan}; until [ -e go ]; do sleep 0.02; done"))
    number = int(pod.trace("orphan"))
    wait_until(lambda: parent_of(number) == pod.process.pid, "the orphan becomes the entrypoint's")
    (pod.directory / "end").touch()
    wait_until(lambda: not os.path.exists(f"/proc/{number}"), "the orphan is reaped, not left a zombie")
    (pod.directory / "go").touch()
    assert pod.end().code == 0


def parent_of(number):
    return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])


def test_an_orphan_that_ends_first_is_not_taken_for_the_command(pod):
    assert pod.run(sh("(sh -c 'exit 9' &); sleep 0.3; exit 4")).code == 4


def test_the_command_dies_with_a_killed_entrypoint(pod):
    pod.start(python("import os, time; print(os.getpid(), file=open('pid', 'w')); time.sleep(60)"))
    number = int(pod.trace("pid"))
    pod.send(signal.SIGKILL)
    pod.end()
    wait_until(lambda: not alive(number), "the command of a killed entrypoint ends")


def test_a_parent_that_ignores_the_end_of_its_children_costs_no_exit_code(pod):
    ignoring = python(
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    assert pod.run(sh("exit 3"), wrapper=[*ignoring, *pod.entrypoint, "exec", "--"]).code == 3


SAVES = """
import os, signal, sys, time
def save(*_):
    time.sleep(0.5)
    print("saved", file=open("saved", "w"), flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, save)
print(os.getpid(), file=open("ready", "w"), flush=True)
while True:
    time.sleep(60)
"""
LAUNCHERS = {
    "a shell line": ["sh", "-c", f'{sys.executable} -ISc "$0"; true'],
    "a launcher that waits": python("import subprocess, sys; subprocess.run([sys.executable, '-ISc', sys.argv[1]])"),
}


@pytest.mark.parametrize("launcher", LAUNCHERS.values(), ids=LAUNCHERS.keys())
def test_a_program_whose_launcher_dies_of_the_signal_may_save_all_the_same(pod, run, launcher):
    """As accelerate's launcher of one process, and `bash -c` with more than one command."""
    pod.start([*launcher, SAVES], environ=pod.environ(SWEEPRUN_GRACE_SECONDS="20"))
    pod.trace("ready")
    pod.send(signal.SIGTERM)
    assert pod.end().code == 128 + signal.SIGTERM
    assert pod.trace("saved") == "saved"
    assert run.end_record().told_to_stop is True


def test_what_does_not_end_when_told_costs_no_more_than_the_grace_leaves(pod, run):
    deaf = SAVES.replace("time.sleep(0.5)", "return")
    pod.start([*LAUNCHERS["a shell line"], deaf], environ=pod.environ(SWEEPRUN_GRACE_SECONDS="6"))
    number = int(pod.trace("ready"))
    pod.send(signal.SIGTERM)
    assert pod.process.wait(timeout=6) == 128 + signal.SIGTERM
    assert run.end_record().told_to_stop is True
    os.kill(number, signal.SIGKILL)  # in a container it would have gone with process 1


def test_what_a_program_leaves_behind_that_ended_by_itself_is_told_nothing(pod):
    left = "trap 'echo told > told; exit' TERM; echo $$ > left; while :; do sleep 0.02; done"
    done = pod.run(
        sh(f"sh -c '{left.replace(chr(39), chr(34))}' >/dev/null 2>&1 & until [ -s left ]; do sleep 0.02; done")
    )
    assert done.code == 0
    os.kill(int(pod.trace("left")), signal.SIGKILL)
    assert not (pod.directory / "told").exists()
