"""What people and tests may set for the entrypoint beside what the operator sets; all of it is optional."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from sweeprun_protocol.environ import EnvironError

PORT = "SWEEPRUN_PORT"
"""Optional: where /progress and /metrics are served (8799); `off`: nowhere; 0: any free port."""
HOST = "SWEEPRUN_HOST"
"""Optional: address to listen on; absent: all addresses of the pod."""
TERMINATION_LOG = "SWEEPRUN_TERMINATION_LOG"
"""Optional, for tests: in place of /dev/termination-log."""
FENCE_SECONDS = "SWEEPRUN_FENCE_SECONDS"
"""Optional: between two looks for a later claim (15)."""
SAMPLE_SECONDS = "SWEEPRUN_SAMPLE_SECONDS"
"""Optional: between two looks for new checkpoints (5)."""
SETTLE_SECONDS = "SWEEPRUN_SETTLE_SECONDS"
"""Optional: how long a network file system may hide what another node wrote (90)."""

DEFAULT_PORT = 8799
SHORTEST_SECONDS = 0.05
"""Between two looks: a loop without a pause would take a core from training."""
DEFAULT_TERMINATION_LOG = "/dev/termination-log"


@dataclass(frozen=True)
class Settings:
    port: Optional[int] = DEFAULT_PORT
    host: Optional[str] = None
    termination_log: Optional[str] = None
    """None: the kubelet's file, where there is one."""
    fence_seconds: float = 15.0
    """Between two looks for a later claim."""
    sample_seconds: float = 5.0
    """Between two looks for new checkpoints."""
    settle_seconds: float = 90.0
    """How long a network file system may hide what another node has written (NFS attribute caches: 60 s)."""

    @staticmethod
    def read(environ: Mapping[str, str]) -> Settings:
        """Raises EnvironError."""
        default = Settings()
        return Settings(
            port=_port(environ.get(PORT) or str(DEFAULT_PORT)),
            host=environ.get(HOST) or None,
            termination_log=environ.get(TERMINATION_LOG) or None,
            fence_seconds=_seconds(environ, FENCE_SECONDS, default.fence_seconds, least=SHORTEST_SECONDS),
            sample_seconds=_seconds(environ, SAMPLE_SECONDS, default.sample_seconds, least=SHORTEST_SECONDS),
            settle_seconds=_seconds(environ, SETTLE_SECONDS, default.settle_seconds),
        )


def _port(text: str) -> Optional[int]:
    if text == "off":
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise EnvironError(f"{PORT}={text!r} is neither a port nor `off`")
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float, *, least: float = 0.0) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value <= 86_400:
        raise EnvironError(f"{name}={text!r} is no number of seconds from {least:g} to 86400")
    return value
