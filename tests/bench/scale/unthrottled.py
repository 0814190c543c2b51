"""`side_by_side` with a training-operator that is bounded by the machine alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

from bench.measuring import Row

from .place import Place
from .side_by_side import compare


async def measure(where: Place) -> AsyncIterator[Row]:
    async for row in compare(where, "--controller-threads=8", "--kube-api-qps=500", "--kube-api-burst=1000"):
        yield row
