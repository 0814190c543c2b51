"""sweeprun.dev/v1alpha1: the SweepRun object. These models are the source of the CRD."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from sweeprun_protocol.keys import GROUP

from .base import ApiModel, StatusModel
from .rules import Rule
from .spec import MAX_NAME, SweepRunSpec
from .status import SweepRunStatus

VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "SweepRun"
PLURAL = "sweepruns"


_DNS_1035 = re.compile("[a-z]([-a-z0-9]*[a-z0-9])?")

NAME_RULES = (
    Rule(
        expression=f"self.metadata.name.size() <= {MAX_NAME}",
        message=f"metadata.name must have at most {MAX_NAME} characters: pods are called <name>-a9999-worker-9999, "
        "and that is a label with at most 63",
        holds=lambda run: len(run.metadata.name) <= MAX_NAME,
    ),
    Rule(
        expression="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        message="metadata.name must begin with a letter and hold lower case letters, digits and '-' only: "
        "training-operator takes no other names",
        holds=lambda run: _DNS_1035.fullmatch(run.metadata.name) is not None,
    ),
)


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
    """SweepRun is one run of a sweep, from sweep_init to completion, over any number of interruptions."""

    model_config = ConfigDict(extra="ignore")
    RULES: ClassVar[tuple[Rule, ...]] = NAME_RULES

    metadata: ObjectMeta
    spec: SweepRunSpec
    status: SweepRunStatus = Field(default_factory=SweepRunStatus)

    @staticmethod
    def from_wire(raw: dict[str, Any]) -> SweepRun:
        """Raises pydantic.ValidationError, where the object was stored under another version of the CRD."""
        return SweepRun.model_validate(raw)
