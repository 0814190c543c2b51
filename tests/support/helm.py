"""The chart as Helm renders it."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Raw = dict[str, Any]
ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "sweeprun"
KUBE_VERSION = "1.34.0"
BUILD = '. hack/lib.sh; . hack/programs.sh; program helm; printf "%s" "$bin/helm"'


class ChartError(Exception):
    """Helm refused; carries what it said."""


@cache
def helm() -> Path:
    """The one that the end-to-end cluster uses, else the one on PATH, else it is built once (85 s, needs Go).

    Raises ChartError where none is to be had.
    """
    cached = Path(os.environ.get("SWEEPRUN_CACHE", Path.home() / ".cache" / "sweeprun")) / "cluster" / "bin" / "helm"
    if cached.exists():
        return cached
    found = shutil.which("helm")
    if found is not None:
        return Path(found)
    built = subprocess.run(["bash", "-euc", BUILD], cwd=ROOT, capture_output=True, text=True)
    if built.returncode != 0:
        raise ChartError(f"no helm, and it could not be built: {built.stderr}")
    return Path(built.stdout.strip())


def install(kubeconfig: Path, *sets: str, namespace: str, release: str = "sweeprun", chart: Path = CHART) -> str:
    """Installs or upgrades; waits for nothing. Gives the notes. Raises ChartError."""
    options = ("--namespace", namespace, "--create-namespace", "--kubeconfig", str(kubeconfig))
    return _run("upgrade", "--install", release, str(chart), *options, *_sets(sets))


def uninstall(kubeconfig: Path, *, namespace: str, release: str = "sweeprun") -> str:
    return _run("uninstall", release, "--namespace", namespace, "--kubeconfig", str(kubeconfig))


def package(directory: Path, *, version: str) -> Path:
    """The chart as an archive that calls itself another version."""
    _run("package", str(CHART), "--destination", str(directory), "--version", version)
    return directory / f"{CHART.name}-{version}.tgz"


def lint(*sets: str) -> str:
    return _run("lint", str(CHART), "--strict", "--kube-version", KUBE_VERSION, *_sets(sets))


def render(*sets: str, namespace: str = "sweeprun-system") -> list[Raw]:
    """The objects of release `sweeprun`. `sets` as for --set. Raises ChartError."""
    options = ("--namespace", namespace, "--kube-version", KUBE_VERSION)
    text = _run("template", "sweeprun", str(CHART), *options, *_sets(sets))
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def _sets(sets: tuple[str, ...]) -> list[str]:
    return [word for one in sets for word in ("--set", one)]


def _run(*arguments: str) -> str:
    answer = subprocess.run([str(helm()), *arguments], capture_output=True, text=True)
    if answer.returncode != 0:
        raise ChartError(answer.stdout + answer.stderr)
    return answer.stdout
