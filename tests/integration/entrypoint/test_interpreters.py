"""Every Python that an image may bring, as far as this machine has it: what is not here is skipped by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.pod import sh
from sweeprun_protocol.exit_codes import ExitCode

VERSIONS = ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"]


@pytest.fixture
def program(pyz):
    return pyz


def places():
    """PATH, and where version managers and uv keep interpreters."""
    path = [Path(place) for place in os.environ["PATH"].split(os.pathsep)]
    managed = [Path.home() / ".pyenv" / "versions", Path.home() / ".local" / "share" / "uv" / "python"]
    return [*path, *(home / "bin" for directory in managed for home in sorted(directory.glob("*")))]


@pytest.fixture(params=VERSIONS)
def interpreter(request):
    """An interpreter of this version that runs: a version manager leaves stubs of names that it does not have."""
    running = Path(sys.executable) if sys.version.startswith(f"{request.param}.") else None
    for candidate in [running, *(place / f"python{request.param}" for place in places())]:
        if candidate is not None and candidate.exists():
            asked = subprocess.run([candidate, "-I", "--version"], capture_output=True, text=True)
            if asked.stdout.startswith(f"Python {request.param}."):
                return str(candidate)
    pytest.skip(f"this machine has no Python {request.param}")


def test_a_whole_life_passes_without_a_word(pod, run, interpreter):
    run.commit(5)
    run.prepare()
    pod.port = 0
    wrapper = [interpreter, "-I", "-S", "-W", "error", *pod.entrypoint[-1:], "exec", "--"]
    environ = pod.environ(SWEEPRUN_STALL_SECONDS="600")
    done = pod.run(sh("sleep 0.3; exit 4"), wrapper=wrapper, environ=environ)  # a few looks, at the fence as well
    assert (done.code, done.stderr) == (4, "")
    assert run.end_record().exit_code == 4


EVERYTHING = """
import pkgutil, sys
sys.path.insert(0, sys.argv[1])
import sweeprun_protocol, sweeprun_volume
for package in (sweeprun_protocol, sweeprun_volume):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            __import__(module.name)
"""


def test_every_module_of_protocol_and_volume_can_be_loaded(pod, interpreter):
    words = [interpreter, "-I", "-S", "-W", "error", "-c", EVERYTHING, pod.entrypoint[-1]]
    loaded = subprocess.run(words, capture_output=True, text=True)
    assert (loaded.returncode, loaded.stderr) == (0, "")


def test_a_stale_attempt_is_refused(pod, run, interpreter):
    run.claim(2)
    wrapper = [interpreter, "-I", "-S", *pod.entrypoint[-1:], "exec", "--"]
    assert pod.run(sh("exit 0"), wrapper=wrapper).code == ExitCode.STALE_EPOCH
