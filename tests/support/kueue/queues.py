"""Queues of one namespace, and what takes their quota."""

from __future__ import annotations

from dataclasses import dataclass

from support.cluster import Cluster, Raw

API = "kueue.x-k8s.io/v1beta1"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
_ROOT = f"/apis/{API}"


@dataclass(frozen=True)
class Queue:
    """A LocalQueue with a ClusterQueue and a flavor of its own, which bear the namespace's name too."""

    cluster: Cluster
    name: str

    @staticmethod
    def make(cluster: Cluster, name: str, **quota: str) -> Queue:
        """`quota`: of the only resources that the queue knows, with `_` for what no Python name may hold."""
        made = Queue(cluster, name)
        resources = [{"name": _resource(kind), "nominalQuota": value} for kind, value in quota.items()]
        made._post("resourceflavors", {"kind": "ResourceFlavor", "metadata": {"name": made.whole}, "spec": {}})
        made._post(
            "clusterqueues", {"kind": "ClusterQueue", "metadata": {"name": made.whole}, "spec": made._spec(resources)}
        )
        local = {"kind": "LocalQueue", "metadata": {"name": name}, "spec": {"clusterQueue": made.whole}}
        made._post(f"namespaces/{cluster.namespace}/localqueues", local)
        return made

    @property
    def whole(self) -> str:
        return f"{self.cluster.namespace}-{self.name}"

    def give(self, **quota: str) -> None:
        resources = [{"name": _resource(kind), "nominalQuota": value} for kind, value in quota.items()]
        self.cluster.call(
            "PATCH",
            f"{_ROOT}/clusterqueues/{self.whole}",
            json={"spec": self._spec(resources)},
            headers={"Content-Type": "application/merge-patch+json"},
        )

    def is_active(self) -> bool:
        found = self.cluster.call("GET", f"{_ROOT}/namespaces/{self.cluster.namespace}/localqueues/{self.name}")
        conditions = found.get("status", {}).get("conditions", [])
        return any(one["type"] == "Active" and one["status"] == "True" for one in conditions)

    def priority(self, value: int) -> str:
        """The name of a class of workloads."""
        name = f"{self.whole}-{value}"
        self._post(
            "workloadpriorityclasses", {"kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": value}
        )
        return name

    def workloads(self) -> list[Raw]:
        path = f"{_ROOT}/namespaces/{self.cluster.namespace}/workloads"
        found: list[Raw] = self.cluster.call("GET", path)["items"]
        return found

    def is_pending(self, job: str) -> bool:
        """Kueue has tried to find quota for it in vain."""
        found = [one for one in self.workloads() if one["metadata"]["ownerReferences"][0]["name"] == job]
        conditions = [condition for one in found for condition in one.get("status", {}).get("conditions", [])]
        return any(
            (one["type"], one["status"], one["reason"]) == ("QuotaReserved", "False", "Pending") for one in conditions
        )

    def collect_garbage(self) -> None:
        """Workloads go with their jobs, once Kueue has let go of them."""
        owners = {one["metadata"]["uid"] for kind in ("PyTorchJob", "Job") for one in self.cluster.list(kind)}
        for workload in self.workloads():
            meta = workload["metadata"]
            if not any(one["uid"] in owners for one in meta.get("ownerReferences", [])):
                self.cluster.call("DELETE", f"{_ROOT}/namespaces/{self.cluster.namespace}/workloads/{meta['name']}")

    def _spec(self, resources: list[dict[str, str]]) -> Raw:
        group = {
            "coveredResources": [one["name"] for one in resources],
            "flavors": [{"name": self.whole, "resources": resources}],
        }
        return {
            "namespaceSelector": {},
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": [group],
        }

    def _post(self, path: str, manifest: Raw) -> None:
        self.cluster.call("POST", f"{_ROOT}/{path}", json={"apiVersion": API, **manifest})


def _resource(name: str) -> str:
    return {"gpu": "nvidia.com/gpu"}.get(name, name)
