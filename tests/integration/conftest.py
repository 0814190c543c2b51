"""What integration tests share: one control plane per session (and per worker of xdist), a namespace per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.cluster import Cluster
from support.control_plane import ControlPlane, running


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real kube-apiserver and etcd; fails where they are missing, since nothing is skipped silently."""
    with running() as plane:
        yield plane


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Cluster:
    """A client in a namespace of this test's own."""
    return control_plane.new_namespace()
