from __future__ import annotations

import os

import pytest

from support.volume_checkpoints import write_lightning_samples, write_torch_samples
from support.volume_sweep import Sweep


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch):
    """Thousands of real fsyncs take minutes on a busy disk. That each is asked for is tested in test_operations.py."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


@pytest.fixture(scope="session")
def torch_samples(tmp_path_factory):
    """Files of the real torch by name; read only."""
    directory = tmp_path_factory.mktemp("torch")
    write_torch_samples(directory)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="session")
def lightning_samples(tmp_path_factory):
    """Files of the real Lightning by name; read only."""
    directory = tmp_path_factory.mktemp("lightning")
    write_lightning_samples(directory)
    return {path.name: path.read_bytes() for path in directory.iterdir()}
