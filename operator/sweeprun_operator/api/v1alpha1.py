"""sweeprun.dev/v1alpha1: the SweepRun object. These models are the source of the CRD."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from sweeprun_protocol.keys import GROUP

from .base import ApiModel, StatusModel
from .spec import SweepRunSpec
from .status import SweepRunStatus

VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "SweepRun"
PLURAL = "sweepruns"


class ObjectMeta(StatusModel):
    """What we read of metadata; the rest is the API server's."""

    name: str
    namespace: str = "default"
    uid: str
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class SweepRun(ApiModel):
    model_config = ConfigDict(extra="ignore")

    metadata: ObjectMeta
    spec: SweepRunSpec
    status: SweepRunStatus = Field(default_factory=SweepRunStatus)

    @staticmethod
    def from_wire(raw: dict[str, Any]) -> SweepRun:
        """Raises pydantic.ValidationError, where the object was stored under another version of the CRD."""
        return SweepRun.model_validate(raw)
