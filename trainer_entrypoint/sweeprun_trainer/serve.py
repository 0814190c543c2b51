"""/progress for the operator and /metrics for Prometheus, on a port of the pod's own. Nothing depends on them."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Optional

from sweeprun_protocol.codec import dump, plain

from .log import say
from .metrics import metrics_body
from .progress import Snapshot
from .settings import Settings
from .start import Place

REQUEST_SECONDS = 2.0
"""One request at a time, each within this: the port costs training nothing, whoever asks."""


class _Server(socketserver.TCPServer):
    allow_reuse_address = True

    def __init__(self, host: Optional[str], port: int, answers: Callable[[str], Optional[tuple[str, bytes]]]) -> None:
        self.answers = answers
        any_address = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - the operator asks from outside
        address = host or any_address
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nobody's concern."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_SECONDS

    def setup(self) -> None:
        super().setup()
        # the socket's own timeout is that of one read: who sends a byte a second would hold the port for hours
        self._cut = threading.Timer(REQUEST_SECONDS, self._hang_up)
        self._cut.daemon = True
        self._cut.start()

    def finish(self) -> None:
        self._cut.cancel()
        super().finish()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        found = self.server.answers(self.path)
        if found is None:
            self.send_error(404)
            return
        kind, body = found
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are not logged: the log is the program's."""


def serve(place: Place, snapshot: Callable[[], Snapshot], *, settings: Settings) -> Optional[int]:
    """Serve in a thread until the process ends; returns the port, None where nothing is served."""
    if settings.port is None:
        return None

    def answers(path: str) -> Optional[tuple[str, bytes]]:
        if path == "/progress":
            return "application/json", progress_body(place, snapshot())
        if path == "/metrics":
            return "text/plain; version=0.0.4", metrics_body(place, snapshot())
        return None

    try:
        server = _Server(settings.host, settings.port, answers)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that is no name
        say(f"port {settings.port} cannot be served, progress will not be seen from outside: {error}")
        return None
    threading.Thread(target=server.serve_forever, name="sweeprun-port", daemon=True).start()
    return int(server.server_address[1])


def progress_body(place: Place, now: Snapshot) -> bytes:
    return dump(
        plain(
            {
                "runId": place.run.run_id,
                "epoch": place.run.epoch,
                "attempt": place.run.attempt,
                "slot": place.pod.slot,
                "step": now.step,
                "committedStep": now.committed_step,
                "firstStepSeconds": now.first_step_seconds,
                "saveSeconds": now.save_seconds,
                "completed": now.completed,
                "tracked": now.tracked,
            }
        )
    )
