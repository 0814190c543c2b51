"""`python -m sweeprun_operator`: what the operator's container runs. Configured by environment only (settings.py)."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from .builders.images import HelperImages
from .builders.manifests import Manifests
from .cluster.gateway import GatewayError
from .cluster.kubernetes_gateway import KubernetesGateway
from .controller.decisions import BoundDecisions
from .handlers.process import LeaseLostError, Process
from .log import configure
from .settings import Settings, SettingsError

_log = logging.getLogger("sweeprun_operator")

USAGE_EXIT = 2


def main() -> int:
    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"error: {error}\n")
        return USAGE_EXIT
    configure(settings.log_format)
    try:
        asyncio.run(_operate(settings))
    except LeaseLostError as error:
        # Restarted by the kubelet, it waits for the Lease like everybody else.
        _log.error("%s", error)
        return 1
    except (GatewayError, OSError) as error:
        _log.error("the operator cannot work: %s", error)
        return 1
    return 0


async def _operate(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    children = Manifests(HelperImages(image=settings.image, pull_policy=settings.image_pull_policy))
    async with await KubernetesGateway.connect(settings.kubeconfig) as gateway:
        await Process(gateway, BoundDecisions(children), settings).run(stop)
    _log.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
