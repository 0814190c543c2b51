"""What the template says of its replicas: how many pods, which slots, how many GPUs."""

from __future__ import annotations

from typing import Any

from sweeprun_operator.api.template import MASTER, Replica, mapping, mappings
from sweeprun_operator.api.template import replicas as replicas_of
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_protocol.names import slot

ACCELERATORS = ("gpu", "tpu", "accelerator", "nvidia", "gaudi", "neuron")
"""Words in names of resources, node labels and taints that speak of accelerators."""
DEFAULT_GRACE_SECONDS = 30


def counts(run: SweepRun) -> dict[str, int]:
    """Pods by lower-case replica type. Raises ValueError where a number is none."""
    found = {}
    for replica in replicas_of(run.spec.template.spec):
        count = replica.count
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(f"{replica.path}.replicas is no whole number")
        found[replica.kind.lower()] = count
    if not sum(found.values()):
        raise ValueError("spec.template.spec.pytorchReplicaSpecs asks for no pod")
    return found


def slots(run: SweepRun) -> tuple[str, ...]:
    return tuple(slot(kind, index) for kind, count in counts(run).items() for index in range(count))


def first(run: SweepRun) -> Replica:
    """The master, where there is one: helper pods take after it."""
    found = replicas_of(run.spec.template.spec)
    if not found:
        raise ValueError("spec.template.spec.pytorchReplicaSpecs is empty")
    return next((replica for replica in found if replica.kind == MASTER), found[0])


def grace_seconds(replica: Replica) -> int:
    """What Kubernetes gives its pods between SIGTERM and SIGKILL."""
    grace = replica.pod.get("terminationGracePeriodSeconds")
    return grace if isinstance(grace, int) else DEFAULT_GRACE_SECONDS


def longest_grace_seconds(run: SweepRun) -> int:
    return max(grace_seconds(replica) for replica in replicas_of(run.spec.template.spec))


def gpus(run: SweepRun) -> int:
    """Of all pods together, by their limits."""
    total = 0
    for replica in replicas_of(run.spec.template.spec):
        for container in replica.containers():
            total += counts(run)[replica.kind.lower()] * _gpus(container.node.get("resources"))
    return total


def _gpus(resources: Any) -> int:
    limits = mapping(mapping(resources).get("limits"))
    wanted = [value for name, value in limits.items() if "/" in name and is_accelerator(name.split("/", 1)[1])]
    return sum(int(value) for value in wanted if str(value).isdigit())


def is_accelerator(name: str) -> bool:
    return any(word in name.lower() for word in ACCELERATORS)


def without_accelerators(pod: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Node selector and tolerations of a pod, less what asks for nodes with accelerators."""
    selector = mapping(mapping(pod).get("nodeSelector"))
    tolerations = mappings(mapping(pod).get("tolerations"))
    return (
        {key: value for key, value in selector.items() if not is_accelerator(str(key))},
        [dict(item) for item in tolerations if not is_accelerator(str(item.get("key", "")))],
    )
