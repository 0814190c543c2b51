"""What an installation puts into the manifests: the operator's own image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperImages:
    image: str
    """Of prepare, of sweep_init's last container and of the container that installs the entrypoint."""
    pull_policy: str = "IfNotPresent"
