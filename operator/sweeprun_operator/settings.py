"""What an installation sets, by environment variables of the operator's container."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T", bound=StrEnum)

PREFIX = "SWEEPRUN_OPERATOR_"
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class SettingsError(ValueError):
    """A variable is missing or holds something else than it should; says which and what it may hold."""


class LogFormat(StrEnum):
    JSON = "json"
    PLAIN = "plain"


class PullPolicy(StrEnum):
    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    image: str
    """SWEEPRUN_OPERATOR_IMAGE: image of prepare Jobs and of the entrypoint's init container; this operator's own."""
    image_pull_policy: PullPolicy
    """SWEEPRUN_OPERATOR_IMAGE_PULL_POLICY: Always, IfNotPresent or Never."""
    namespaces: tuple[str, ...] | None
    """SWEEPRUN_OPERATOR_NAMESPACES: those that are watched, comma separated; `*`: all."""
    lease_namespace: str
    """SWEEPRUN_OPERATOR_LEASE_NAMESPACE: where the Lease lies; the operator's own namespace."""
    lease_name: str
    """SWEEPRUN_OPERATOR_LEASE_NAME."""
    identity: str
    """SWEEPRUN_OPERATOR_POD_NAME: holder of the Lease; absent: the host name."""
    resync_seconds: float
    """SWEEPRUN_OPERATOR_RESYNC_SECONDS: from one complete list of SweepRuns to the next; 1 to 3600."""
    workers: int
    """SWEEPRUN_OPERATOR_WORKERS: SweepRuns of a namespace that are worked on at once; 1 to 256."""
    prepares: int
    """SWEEPRUN_OPERATOR_PREPARES: prepare Jobs that run at once; 1 to 10000."""
    prepares_per_namespace: int
    """SWEEPRUN_OPERATOR_PREPARES_PER_NAMESPACE: of those, in one namespace; 1 to 10000."""
    health_port: int
    """SWEEPRUN_OPERATOR_HEALTH_PORT: /healthz and /readyz; 0: any free port."""
    metrics_port: int
    """SWEEPRUN_OPERATOR_METRICS_PORT: /metrics; 0: any free port."""
    listen: str | None
    """SWEEPRUN_OPERATOR_LISTEN: address of both servers; absent: all addresses of the pod."""
    progress_port: int
    """SWEEPRUN_OPERATOR_PROGRESS_PORT: where trainers answer /progress."""
    progress_seconds: float
    """SWEEPRUN_OPERATOR_PROGRESS_SECONDS: from one poll of a running attempt to the next; 0: never asked."""
    log_format: LogFormat
    """SWEEPRUN_OPERATOR_LOG_FORMAT: json or plain."""
    kubeconfig: str | None
    """KUBECONFIG, for development; absent: the pod's service account."""

    @staticmethod
    def read(environ: Mapping[str, str]) -> Settings:
        """Raises SettingsError."""
        reader = _Reader(environ)
        return Settings(
            image=reader.required("IMAGE"),
            image_pull_policy=reader.choice("IMAGE_PULL_POLICY", PullPolicy, PullPolicy.IF_NOT_PRESENT),
            namespaces=reader.namespaces("NAMESPACES"),
            lease_namespace=reader.required("LEASE_NAMESPACE"),
            lease_name=reader.text("LEASE_NAME", "sweeprun-operator"),
            identity=reader.text("POD_NAME", socket.gethostname()),
            resync_seconds=reader.number("RESYNC_SECONDS", 180, least=1, most=3600),
            workers=reader.number("WORKERS", 2, least=1, most=256),
            prepares=reader.number("PREPARES", 200, least=1, most=10000),
            prepares_per_namespace=reader.number("PREPARES_PER_NAMESPACE", 100, least=1, most=10000),
            health_port=reader.number("HEALTH_PORT", 8080, least=0, most=65535),
            metrics_port=reader.number("METRICS_PORT", 8081, least=0, most=65535),
            listen=reader.text("LISTEN", "") or None,
            progress_port=reader.number("PROGRESS_PORT", 8799, least=1, most=65535),
            progress_seconds=reader.number("PROGRESS_SECONDS", 10, least=0, most=3600),
            log_format=reader.choice("LOG_FORMAT", LogFormat, LogFormat.JSON),
            kubeconfig=environ.get("KUBECONFIG") or None,
        )


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str, default: str) -> str:
        return self._environ.get(PREFIX + name) or default

    def required(self, name: str) -> str:
        value = self.text(name, "")
        if not value:
            raise SettingsError(f"{PREFIX}{name} is not set")
        return value

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        value = self.text(name, str(default))
        if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
            raise SettingsError(f"{PREFIX}{name} is no whole number from {least} to {most}")
        return int(value)

    def choice(self, name: str, kind: type[T], default: T) -> T:
        value = self.text(name, default)
        try:
            return kind(value)
        except ValueError:
            raise SettingsError(f"{PREFIX}{name} is none of {', '.join(kind)}") from None

    def namespaces(self, name: str) -> tuple[str, ...] | None:
        value = self.required(name)
        if value.strip() == "*":
            return None
        found = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
        if not all(_NAMESPACE.fullmatch(part) for part in found):
            raise SettingsError(f"{PREFIX}{name} is neither * nor a comma-separated list of namespaces")
        return found
