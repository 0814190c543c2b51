"""`side_by_side` with a training-operator that is bounded by the machine alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

from bench.measuring import Row

from . import side_by_side
from .place import Place


def measure(where: Place) -> AsyncIterator[Row]:
    return side_by_side.measure(where, "--controller-threads=8", "--kube-api-qps=500", "--kube-api-burst=1000")
