"""A server for each test, and clients that talk to it and to nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.wandb_server import RunningServer, serve
from support.wandb_server.client import Client

ENTITY, PROJECT, RUN = "team", "project", "run-1"
StartClient = Callable[..., Client]


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with serve() as running:
        yield running


@pytest.fixture
def start_client(server: RunningServer, tmp_path: Path) -> Iterator[StartClient]:
    """Start an attempt with the given variables (None takes one away); its number and its directory are new."""
    attempts = iter(range(100))
    with ExitStack() as clients:

        def start(environ: Mapping[str, str | None], **init: Any) -> Client:
            number = next(attempts)
            directory = tmp_path / str(number)
            directory.mkdir()
            base = {"WANDB_ENTITY": ENTITY, "WANDB_PROJECT": PROJECT, "WANDB_RUN_ID": RUN}
            own = server.client_environ(str(directory), writer=f"attempt-{number}")
            merged = {**own, **base, **environ}
            given = {name: value for name, value in merged.items() if value is not None}
            return clients.enter_context(Client(given, **init))

        yield start
