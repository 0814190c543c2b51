"""The test server within the test's own process, on the loopback, ending with the test."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .journal import Journal, Run
from .server import WRITER_HEADER, Server

API_KEY = "0" * 40
"""The client insists on 40 characters; the server looks at none of them."""


@dataclass(frozen=True)
class RunningServer:
    """Where it listens, and short ways to what it has recorded."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def journal(self, **query: str | float) -> Journal:
        return Journal.fetch(self.url, query)

    def run(self, entity: str, project: str, run_id: str) -> Run:
        return self.journal().run(entity, project, run_id)

    def wait(self, condition: Callable[[Journal], object], *, timeout: float = 30) -> Journal:
        return Journal.wait(self.url, condition, timeout=timeout)

    def client_environ(self, directory: str, *, writer: str | None = None) -> dict[str, str]:
        """The whole environment for a process that uses wandb: nothing of it leaves `directory` and the loopback."""
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": directory,
            "WANDB_DIR": directory,
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": API_KEY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_CONSOLE": "off",
            "WANDB_SILENT": "true",
        }
        if writer is not None:
            environ["WANDB__EXTRA_HTTP_HEADERS"] = f'{{"{WRITER_HEADER}": "{writer}"}}'
        return environ


@contextmanager
def serve(directory: str | None = None, *, port: int = 0) -> Iterator[RunningServer]:
    """Serve on 127.0.0.1 while the context is open; with a directory, go on from the journal in it."""
    server = Server(("127.0.0.1", port), directory)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="wandb-server")
    thread.start()
    try:
        yield RunningServer(server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.close()
