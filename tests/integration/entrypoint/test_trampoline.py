"""From the init container's `install` to the command: run.sh finds a Python in whatever the image is."""

import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from support.pod import sh
from sweeprun_protocol.exit_codes import ExitCode

AWKWARD = ["a b", "", 'quo"te', "apos'trophe", "new\nline", "$HOME", "back\\slash", "*", "--", "-c", "é", "\t"]
PRINT = [sys.executable, "-ISc", "import json, sys; print(json.dumps(sys.argv[1:]))"]


@pytest.fixture(scope="module")
def installed(pyz, tmp_path_factory):
    """What the init container leaves in the volume that it shares with the training container."""
    directory = tmp_path_factory.mktemp("entrypoint")
    subprocess.run([sys.executable, "-I", "-S", pyz, "install", "--to", directory], check=True)
    return directory


@pytest.fixture
def bin_directory(tmp_path):
    """A PATH of the test's own."""
    directory = tmp_path / "bin"
    directory.mkdir()
    return directory


def through(installed):
    return ["/bin/sh", str(installed / "run.sh")]


def sealed(installed, unpacked, directory):
    """A copy of run.sh for which `directory` is the root: this machine's own interpreters are out of its sight."""
    directory.mkdir()
    (directory / "sweeprun.pyz").symlink_to(unpacked)  # starts sooner than the zip
    text = (installed / "run.sh").read_text()
    for top in ("/opt", "/venv", "/app", "/workspace", "/usr"):
        assert f" {top}/" in text
        text = text.replace(f" {top}/", f" {directory}{top}/")
    (directory / "run.sh").write_text(text)
    return through(directory)


def interpreter(path, text=f'exec {sys.executable} "$@"'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_install_makes_both_files_readable_and_executable_by_everybody(installed):
    assert sorted(path.name for path in installed.iterdir()) == ["run.sh", "sweeprun.pyz"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in installed.iterdir()} == {0o755}


def test_install_says_who_may_not_write_where(pyz, tmp_path):
    done = subprocess.run(
        [sys.executable, "-I", "-S", pyz, "install", "--to", tmp_path / "absent"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr
    assert f"runs as uid {os.getuid()}" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_argument_arrives_as_it_was_given(pod, installed):
    done = pod.run([*PRINT, *AWKWARD], wrapper=through(installed))
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout) == AWKWARD


def test_the_exit_code_and_the_records_are_those_of_the_entrypoint(pod, run, installed):
    assert pod.run(sh("exit 9"), wrapper=through(installed)).code == 9
    assert run.end_record().exit_code == 9


def test_the_shell_leaves_no_process_between_the_kubelet_and_the_entrypoint(pod, installed):
    done = pod.run(sh("cat /proc/$PPID/cmdline | tr '\\0' ' '; echo $PPID"), wrapper=through(installed))
    assert "sweeprun.pyz exec" in done.stdout
    assert done.stdout.split()[-1] == str(pod.process.pid)


@pytest.mark.parametrize(
    "place",
    [
        "opt/conda/bin/python3",
        "opt/conda/envs/some env/bin/python3",
        "opt/mine/bin/python3",
        "venv/bin/python3",
        "usr/libexec/platform-python",
    ],
)
def test_python_is_found_where_images_keep_it(pod, installed, unpacked, tmp_path, bin_directory, place):
    root = tmp_path / "root"
    command = sealed(installed, unpacked, root)
    interpreter(root / place)
    environ = pod.environ(PATH=str(bin_directory))
    assert pod.run([*PRINT, "x"], wrapper=command, environ=environ).stdout == '["x"]\n'


@pytest.mark.parametrize("name", ["python", "python3.9", "python3.13"])
def test_python_is_found_on_the_path_by_any_name(pod, installed, unpacked, tmp_path, bin_directory, name):
    interpreter(bin_directory / name)
    environ = pod.environ(PATH=str(bin_directory))
    assert pod.run(PRINT, wrapper=sealed(installed, unpacked, tmp_path / "root"), environ=environ).code == 0


def test_a_python_that_is_too_old_or_broken_is_passed_over(pod, installed, unpacked, tmp_path, bin_directory):
    interpreter(bin_directory / "python3", "exit 1")
    interpreter(bin_directory / "python", "echo no interpreter at all; kill -9 $$")
    interpreter(bin_directory / "python3.10")
    environ = pod.environ(PATH=str(bin_directory))
    done = pod.run(PRINT, wrapper=sealed(installed, unpacked, tmp_path / "root"), environ=environ)
    assert (done.code, done.stdout) == (0, "[]\n")


@pytest.mark.parametrize("path", ["", "/nonexistent"])
def test_an_image_without_python_is_told_so(pod, run, installed, unpacked, tmp_path, path):
    environ = pod.environ(PATH=path)
    done = pod.run(sh("exit 0"), wrapper=sealed(installed, unpacked, tmp_path / "root"), environ=environ)
    assert done.code == ExitCode.NO_PYTHON
    assert "no Python 3.9 or newer" in done.ours
    assert "spec.entrypoint.pythonPath" in done.ours
    assert run.start_record() is None


def test_the_chosen_python_is_used_and_no_other(pod, installed, tmp_path):
    chosen = interpreter(
        tmp_path / "my python" / "python3", f'echo chosen >> "{tmp_path}/log"; exec {sys.executable} "$@"'
    )
    assert pod.run(PRINT, wrapper=through(installed), environ=pod.environ(SWEEPRUN_PYTHON=str(chosen))).code == 0
    assert (tmp_path / "log").read_text() == "chosen\nchosen\n"  # asked for its version, then run


@pytest.mark.parametrize("path", ["/nonexistent/python3", "/bin/false"])
def test_a_chosen_path_that_is_no_python_is_told_and_nothing_else_is_tried(pod, run, installed, path):
    done = pod.run(sh("exit 0"), wrapper=through(installed), environ=pod.environ(SWEEPRUN_PYTHON=path))
    assert done.code == ExitCode.NO_PYTHON
    assert f"spec.entrypoint.pythonPath is {path}" in done.ours
    assert run.start_record() is None


def test_the_programs_python_variables_do_not_reach_the_entrypoint(pod, installed, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong module')")
    (tmp_path / "sweeprun_trainer.py").write_text("raise SystemExit('the wrong module')")
    environ = pod.environ(PYTHONPATH=str(tmp_path), PYTHONSTARTUP="/nonexistent", PYTHONWARNINGS="error")
    done = pod.run(sh("echo $PYTHONPATH"), wrapper=through(installed), environ=environ)
    assert (done.code, done.stdout, done.stderr) == (0, f"{tmp_path}\n", "")


def test_told_to_stop_while_python_is_looked_for_it_goes(pod, installed, tmp_path):
    text = f'echo asked > "{tmp_path}/asked"; sleep 0.3; exec {sys.executable} "$@"'
    slow = interpreter(tmp_path / "slow" / "python3", text)
    pod.start(sh("echo ran > ran"), wrapper=through(installed), environ=pod.environ(SWEEPRUN_PYTHON=str(slow)))
    pod.trace("asked")
    pod.send(signal.SIGTERM)
    assert pod.end().code == 143
    assert not (tmp_path / "ran").exists()
