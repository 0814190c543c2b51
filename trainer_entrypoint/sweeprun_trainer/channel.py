"""From the library to the entrypoint of the same pod: datagrams on an abstract socket, which needs no directory.

Losing one harms nothing: it tells of progress only, and what counts is on the volume.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Mapping
from typing import Any, Optional

from sweeprun_protocol.codec import parse

PROGRESS_SOCKET = "SWEEPRUN_PROGRESS_SOCKET"
"""Name in the abstract namespace; unguessable, since on a node's own network everybody could write to it."""
MAX_MESSAGE = 4096


class Receiver:
    """The entrypoint's end. Raises OSError where the system has no abstract sockets."""

    def __init__(self) -> None:
        self.name = f"sweeprun-{os.getpid()}-{secrets.token_hex(16)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.name)

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> Optional[dict[str, Any]]:
        """The next message, or None where there is none now. Raises RecordError."""
        try:
            data = self._socket.recv(MAX_MESSAGE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        return parse(data, where="progress message", limit=MAX_MESSAGE)

    def close(self) -> None:
        self._socket.close()


class Sender:
    """The library's end; silent outside a pod of ours."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._name = environ.get(PROGRESS_SOCKET)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._name else None

    def send(self, message: Mapping[str, Any]) -> bool:
        """False where nobody takes it; the caller goes on."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto(json.dumps(message).encode(), socket.MSG_DONTWAIT, f"\0{self._name}")
        except OSError:  # the entrypoint is gone, or behind: progress is for people, the next message tells it as well
            return False
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
