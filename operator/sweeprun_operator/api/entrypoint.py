"""Which training containers get the entrypoint around their command, and what is weaker where none does."""

from __future__ import annotations

from .spec import EntrypointMode, SweepRunSpec
from .template import Container, replicas

CHECK = "sweeprun-check"
"""Init container that makes the start check where no entrypoint can."""


def is_wrapped(spec: SweepRunSpec, container: Container) -> bool:
    if spec.entrypoint.mode is EntrypointMode.AUTO:
        return bool(container.node.get("command"))
    return spec.entrypoint.mode is EntrypointMode.WRAP


def unwrapped(spec: SweepRunSpec) -> list[str]:
    """Kinds of replicas whose training containers run as the image starts them."""
    found = {
        replica.kind: replica.container(spec.entrypoint.container_name) for replica in replicas(spec.template.spec)
    }
    return [kind for kind, container in found.items() if container is not None and not is_wrapped(spec, container)]


def clean_pod_policy(spec: SweepRunSpec) -> str:
    """Running: finished pods stay as evidence, survivors are stopped with full grace (seen on a cluster). None where
    there is no entrypoint: the master's would wait for its peers' ends, so that training-operator stops none of them in
    its last second."""
    return "None" if unwrapped(spec) else "Running"


def weaker(spec: SweepRunSpec) -> str | None:
    """In words for people; None where every container is wrapped."""
    kinds = unwrapped(spec)
    if not kinds:
        return None
    said = (
        f"{', '.join(kinds)} without the entrypoint (EnvOnly): completion is judged by what Kubernetes shows of the "
        "pods, progress is not seen while they run, and a later claim does not end them"
    )
    if spec.limits.stall_timeout_seconds is not None:
        said += "; limits.stallTimeoutSeconds does not apply to them"
    return said
