"""A W&B server for tests. It believes every client, forgets nothing, and shows what it was told.

Standard library only, Python 3.9 or newer: the end-to-end tests mount this file and state.py into a pod whose image
has no more than a Python. Start it with `python server.py --host 0.0.0.0 --port 8080 --journal DIR`, or as a
package with `python -m support.wandb_server`.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import json
import os
import re
import signal
import socket
import socketserver
import sys
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING or __package__:
    from .state import Address, Event, Json, Request, State, mapping, text
else:  # started as a file
    from state import Address, Event, Json, Request, State, mapping, text

MAX_BODY_BYTES = 64 << 20
MAX_EVENTS_IN_MEMORY = 50_000
MAX_WAIT_SECONDS = 60.0
IDLE_SECONDS = 120.0  # four heartbeats of the client
WRITER_HEADER = "X-Journal-Writer"
"""Set by a test through WANDB__EXTRA_HTTP_HEADERS, where the address of a connection does not tell enough."""


class Recorder:
    """Puts requests in order, keeps them on disk if asked to, and lets readers wait for the next."""

    def __init__(self, directory: Optional[str] = None) -> None:
        self._state = State()
        self._events: collections.deque[Event] = collections.deque(maxlen=MAX_EVENTS_IN_MEMORY)
        self._seq = 0
        self._changed = threading.Condition()
        self._closed = False
        self._file = None
        if directory is not None:
            os.makedirs(directory, exist_ok=True)
            self._file = open(os.path.join(directory, "events.jsonl"), "a+b")  # noqa: SIM115  closed by close()
            self._reload()

    def _reload(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                # Cut off by a crash, so its client never got an answer and will repeat it.
                self._file.truncate(end)
                break
            end += len(line)
            fields = json.loads(line)
            self._take(Event(fields["seq"], fields["at"], Request(**fields["request"])))

    def _take(self, event: Event) -> tuple[int, Json]:
        self._seq = event.seq
        self._events.append(event)
        return self._state.apply(event)

    def record(self, request: Request) -> tuple[int, Json]:
        """Keep the request, then answer it: what was answered is never lost."""
        with self._changed:
            if self._closed:
                raise ConnectionAbortedError("the server is being closed")
            event = Event(self._seq + 1, time.time(), request)
            if self._file is not None:
                self._file.write(json.dumps(dataclasses.asdict(event)).encode() + b"\n")
                self._file.flush()
                os.fsync(self._file.fileno())
            answer = self._take(event)
            self._changed.notify_all()
            return answer

    def view(self, query: dict[str, str]) -> bytes:
        """The journal as JSON.

        `entity`, `project`, `run` and `events` (how many, the newest) bound it; with `after` and `wait` (seconds) the
        answer is held back until there is a later event than that one.
        """
        after, wait = float(query.get("after", -1)), min(float(query.get("wait", 0)), MAX_WAIT_SECONDS)
        wanted = [query.get(key) for key in ("entity", "project", "run")]
        count = int(query.get("events", MAX_EVENTS_IN_MEMORY))

        def chosen(address: Optional[Address]) -> bool:
            parts = address or ("", "", "")
            return all(want in (None, part) for want, part in zip(wanted, parts))  # noqa: B905  Python 3.9

        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._seq > after, timeout=wait)
            events = [dataclasses.asdict(event) for event in self._events if chosen(event.address)]
            runs = [run.view() for address, run in self._state.runs.items() if chosen(address)]
            shown = events[-count:] if count > 0 else []
            return json.dumps({"seq": self._seq, "runs": runs, "events": shown}).encode()

    def close(self) -> None:
        """Let go of waiting readers and of the file."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._file is not None:
                self._file.close()


class RefusedError(Exception):
    """A request that is answered with an error and not recorded."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with keep-alive, one thread per connection."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    wbufsize = -1  # head and body leave in one packet
    server: Server

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the base class's
        """Say nothing: the journal has it all."""

    def _answer(self, produce: Callable[[str, dict[str, str]], tuple[int, bytes]]) -> None:
        url = urllib.parse.urlsplit(self.path)
        try:
            status, data = produce(url.path, dict(urllib.parse.parse_qsl(url.query)))
        except RefusedError as refusal:
            status, data = refusal.status, json.dumps({"error": str(refusal)}).encode()
            self.close_connection = True  # the rest of the body may still be under way
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def _get(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        if path == "/healthz":
            return 200, b'{"ok": true}'
        if path != "/journal":
            return self._record(path, {})
        try:
            return 200, self.server.recorder.view(query)
        except ValueError as error:
            raise RefusedError(400, str(error)) from None

    def _post(self, path: str, _query: dict[str, str]) -> tuple[int, bytes]:
        data = b"".join(self._body(MAX_BODY_BYTES))
        if self.headers.get("Content-Encoding") == "gzip":
            data = unzipped(data)
        try:
            body = json.loads(data or b"{}")
        except (ValueError, RecursionError):
            raise RefusedError(400, "the body is not JSON") from None
        if path == "/graphql":
            query = text(mapping(body).get("query"))
            named = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
            operation = mapping(body).get("operationName") or (named.group(1) if named else "")
            body = {"operation": operation, "variables": mapping(mapping(body).get("variables"))}
        return self._record(path, mapping(body))

    def _put(self, path: str, _query: dict[str, str]) -> tuple[int, bytes]:
        size, digest = 0, hashlib.sha256()
        for chunk in self._body(None):
            size += len(chunk)
            digest.update(chunk)
        return self._record(path, {"bytes": size, "sha256": digest.hexdigest()})

    def _body(self, limit: Optional[int]) -> Iterator[bytes]:
        """The body in pieces.

        Raises:
            RefusedError: its length is not given, or more than the limit.
            ConnectionError: the client went away before its end.
        """
        length = self.headers.get("Content-Length") or ("" if self.headers.get("Transfer-Encoding") else "0")
        if not length.isdigit():
            raise RefusedError(411, "a Content-Length is needed")
        left = int(length)
        if limit is not None and left > limit:
            raise RefusedError(413, f"{left} bytes, more than the {limit} allowed")
        while left:
            chunk = self.rfile.read(min(left, 1 << 20))
            if not chunk:
                raise ConnectionAbortedError("the client went away within its request")
            left -= len(chunk)
            yield chunk

    def _record(self, path: str, body: Json) -> tuple[int, bytes]:
        host = self.headers.get("Host") or "{}:{}".format(*self.server.server_address[:2])
        request = Request(
            method=self.command,
            path=path,
            client="{}:{}".format(*self.client_address[:2]),
            writer=self.headers.get(WRITER_HEADER, ""),
            agent=self.headers.get("User-Agent", ""),
            base_url=f"http://{host}",
            body=body,
        )
        status, answer = self.server.recorder.record(request)
        return status, json.dumps(answer).encode()


def unzipped(data: bytes) -> bytes:
    """Undo gzip, but not for a body that unpacks to more than is allowed."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(data, MAX_BODY_BYTES)
    except zlib.error as error:
        raise RefusedError(400, f"not gzip: {error}") from None
    if not unpacker.eof:
        raise RefusedError(413 if len(plain) == MAX_BODY_BYTES else 400, "the body is too large or cut off")
    return plain


class Server(ThreadingHTTPServer):
    """Listens from the start, answers within `serve_forever`; `close` leaves no thread and no socket behind."""

    daemon_threads = False  # close() waits for them
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], directory: Optional[str] = None) -> None:
        self._connections: set[socket.socket] = set()
        self.recorder = Recorder(directory)
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Skip the base class's look-up of the host's full name, which can hang where DNS does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is what the tests are about; anything else is a fault of ours."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Call after `serve_forever` has returned."""
        self.recorder.close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client was faster
        self.server_close()


def main() -> None:
    """Serve until SIGTERM, which process 1 of a container has to handle itself."""
    parser = argparse.ArgumentParser(description="A W&B server for tests that keeps a journal.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--journal", metavar="DIR", help="keep the events there and go on from what it holds")
    options = parser.parse_args()
    server = Server((options.host, options.port), options.journal)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print("listening on http://{}:{}".format(*server.server_address[:2]), flush=True)
    server.serve_forever(poll_interval=0.1)
    server.close()


if __name__ == "__main__":
    main()
