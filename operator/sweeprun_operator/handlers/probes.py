"""/healthz and /readyz on one port, /metrics on another, so that a network policy can tell them apart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from sweeprun_operator.controller.health import Health


class Probes:
    def __init__(
        self, *, health: Health, registry: CollectorRegistry, health_port: int, metrics_port: int, host: str | None
    ) -> None:
        """Port 0 takes any free one; `host` None: all addresses, since the kubelet and Prometheus come from outside."""
        self._health = health
        self._registry = registry
        self._host = host
        self._ports = (health_port, metrics_port)
        self._runners: list[web.AppRunner] = []

    async def __aenter__(self) -> Self:
        checks = web.Application()
        checks.router.add_get("/healthz", self._answer(self._health.trouble))
        checks.router.add_get("/readyz", self._answer(self._health.unready))
        metrics = web.Application()
        metrics.router.add_get("/metrics", self._metrics)
        for app, port in zip((checks, metrics), self._ports, strict=True):
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            self._runners.append(runner)
            await web.TCPSite(runner, self._host, port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for runner in self._runners:
            await runner.cleanup()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of the health and the metrics server."""
        return [runner.addresses[0][:2] for runner in self._runners]

    @staticmethod
    def _answer(look: Callable[[], str | None]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(_: web.Request) -> web.StreamResponse:
            trouble = look()
            return web.Response(text=trouble or "ok", status=503 if trouble else 200)

        return answer

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
