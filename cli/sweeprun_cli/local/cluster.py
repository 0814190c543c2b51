"""One machine as a cluster: store, gateway, controllers and kubelet, and the hand that disturbs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from sweeprun_operator.api.entrypoint import CHECK
from sweeprun_operator.cluster.gateway import ConflictError, NotFoundError
from sweeprun_protocol.keys import ROLE_ATTEMPT, ROLE_LABEL

from . import controllers
from .containers import Machine
from .gateway import NAMESPACE, NODE, LocalGateway, Told
from .kubelet import Before, Kubelet, set_condition
from .store import Raw, Store


class LocalCluster:
    """Async context; its end kills every process that it started."""

    def __init__(
        self,
        machine: Machine,
        *,
        directory: Path,
        container: str,
        before: Before,
        told: Callable[[Told], None],
        warn: Callable[[str], None],
    ) -> None:
        """`container` is the one that trains (spec.entrypoint.containerName): local mode has no images, so of an
        attempt's pods it plays nothing else. `directory` takes logs; `before` sees every pod before it starts; `told`
        hears the Events."""
        self.store = Store()
        self.gateway = LocalGateway(self.store, told=told)
        self._container = container
        self._kubelet = Kubelet(self.store, machine, directory=directory, plays=self._plays, before=before, warn=warn)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        node: Raw = {"metadata": {"name": NODE}, "status": {}}
        set_condition(node["status"], "Ready", "KubeletReady", "")
        self.store.create("Node", NAMESPACE, node)
        self._task = asyncio.create_task(self._control(), name="local-cluster")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._kubelet.close()

    def add_claim(self, name: str, *, mode: str = "ReadWriteMany") -> None:
        spec = {"accessModes": [mode]}
        self.store.create("PersistentVolumeClaim", NAMESPACE, {"metadata": {"name": name}, "spec": spec})

    def add_run(self, manifest: Raw) -> Raw:
        return self.store.create("SweepRun", NAMESPACE, {**manifest, "status": {}})

    def trainers(self, *, running: bool = False) -> list[Raw]:
        """Pods of attempts, in the order of their names."""
        found = [pod for pod in self.store.find("Pod") if pod["metadata"]["labels"].get(ROLE_LABEL) == ROLE_ATTEMPT]
        return [pod for pod in found if not running or self._kubelet.port(pod["metadata"]["uid"]) is not None]

    def port(self, pod: Raw) -> int | None:
        return self._kubelet.port(pod["metadata"]["uid"])

    def log(self, pod: Raw) -> Path | None:
        return self._kubelet.log(pod["metadata"]["uid"], self._container)

    def evict(self, pod: Raw) -> bool:
        """As the Eviction API: the condition first, then a deletion with grace. False: the pod is gone."""

        def edit(raw: Raw) -> None:
            text = "Eviction API: evicting"
            set_condition(raw.setdefault("status", {}), "DisruptionTarget", "EvictionByEvictionAPI", text)

        if self.store.change("Pod", pod, edit) is None:
            return False
        metadata = pod["metadata"]
        try:
            self.store.delete("Pod", metadata["namespace"], metadata["name"], uid=metadata["uid"])
        except (NotFoundError, ConflictError):
            return False
        return True

    def kill(self, pod: Raw) -> bool:
        """SIGKILL to the pod's processes. False: none runs."""
        return self._kubelet.kill(pod["metadata"]["uid"])

    def _plays(self, pod: Raw, container: Raw, is_init: bool) -> bool:
        if pod["metadata"]["labels"].get(ROLE_LABEL) == ROLE_ATTEMPT:
            return bool(container["name"] == (CHECK if is_init else self._container))
        return True

    async def _control(self) -> None:
        while True:
            await self.store.changed()
            controllers.sync(self.store)
            self._kubelet.sync()
