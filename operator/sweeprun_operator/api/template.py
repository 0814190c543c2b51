"""Reading a workload template, whose types nobody has checked yet: what is not as it should be reads as absent, and the
API server's dry run says so in its own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

REPLICA_SPECS = "spec.template.spec.pytorchReplicaSpecs"
MASTER = "Master"
WORKER = "Worker"

Node = Mapping[str, Any]


def mapping(value: Any) -> Node:
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Node]:
    """The objects in a list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


@dataclass(frozen=True)
class Container:
    path: str
    """Where it stands in the manifest, for messages."""
    node: Node

    @property
    def words(self) -> list[str]:
        return [*texts(self.node.get("command")), *texts(self.node.get("args"))]

    def environment(self) -> Iterator[tuple[str, str | None]]:
        """Names, and the value where it is written down literally."""
        for entry in mappings(self.node.get("env")):
            name, value = entry.get("name"), entry.get("value")
            if isinstance(name, str):
                yield name, value if isinstance(value, str) else None


@dataclass(frozen=True)
class Replica:
    kind: str
    node: Node

    @property
    def path(self) -> str:
        return f"{REPLICA_SPECS}.{self.kind}"

    @property
    def count(self) -> Any:
        """1 where absent, as training-operator has it; anything, where it is wrong."""
        count = self.node.get("replicas")
        return 1 if count is None else count

    @property
    def pod(self) -> Node:
        return mapping(mapping(self.node.get("template")).get("spec"))

    def containers(self) -> list[Container]:
        path = f"{self.path}.template.spec.containers"
        return [Container(f"{path}[{node.get('name', '?')}]", node) for node in mappings(self.pod.get("containers"))]

    def container(self, name: str) -> Container | None:
        return next((found for found in self.containers() if found.node.get("name") == name), None)

    def claim_volumes(self, claim: str) -> set[str]:
        """Names of the pod's volumes that are this claim."""
        return {
            str(volume.get("name"))
            for volume in mappings(self.pod.get("volumes"))
            if mapping(volume.get("persistentVolumeClaim")).get("claimName") == claim
        }


def replicas(workload: Node) -> list[Replica]:
    """Of `spec.template.spec`."""
    return [Replica(str(kind), mapping(node)) for kind, node in mapping(workload.get("pytorchReplicaSpecs")).items()]
