"""The entrypoint as it is shipped: the zipapp, run without anything of this project's environment."""

from __future__ import annotations

import compileall
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.pod import Pod
from support.run_directory import RunDirectory

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("zipapp") / "sweeprun.pyz"
    subprocess.run([sys.executable, ROOT / "hack" / "build_zipapp.py", output], check=True, capture_output=True)
    return output


@pytest.fixture(scope="session")
def unpacked(pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same files, compiled once: from a zip Python compiles them anew at every start."""
    directory = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(pyz) as archive:
        archive.extractall(directory)
    compileall.compile_dir(directory, quiet=2)
    return directory


@pytest.fixture
def program(unpacked: Path) -> Path:
    """What the pods of a test run; modules whose subject is the start itself take the zipapp."""
    return unpacked


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "volume")


@pytest.fixture
def new_pod(program: Path, run: RunDirectory, tmp_path: Path) -> Iterator[Callable[..., Pod]]:
    """A pod of one slot; the second argument is another run directory than the test's own."""
    made: list[Pod] = []

    def new(slot: str = "master-0", of: RunDirectory = run) -> Pod:
        made.append(Pod(program, of, tmp_path, slot=slot))
        return made[-1]

    yield new
    for pod in made:
        pod.destroy()


@pytest.fixture
def pod(new_pod: Callable[..., Pod]) -> Pod:
    return new_pod()


@pytest.fixture
def two(tmp_path: Path) -> RunDirectory:
    """An attempt of a master and a worker."""
    return RunDirectory(tmp_path / "two", slots=("master-0", "worker-0"))


@pytest.fixture
def workers(tmp_path: Path) -> RunDirectory:
    """An attempt of workers alone."""
    return RunDirectory(tmp_path / "workers", slots=("worker-0", "worker-1"))
