"""A SweepRun as read from a cluster: every text of it is neutral, so that whatever prints it prints nothing hostile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from sweeprun_cli.exits import CommandError, Exit
from sweeprun_cli.plain import neutralised
from sweeprun_operator.api.spec import Limits
from sweeprun_operator.api.status import SweepRunStatus
from sweeprun_operator.cluster.fields import moment, number, sub, text
from sweeprun_operator.cluster.gateway import Raw


@dataclass(frozen=True, slots=True)
class Row:
    """What a list shows; read without the models, so that objects of any version have one."""

    namespace: str
    name: str
    phase: str
    attempt: int | None
    step: int | None
    resumes: int | None
    kept: int | None
    sweep: str
    run_id: str | None
    checkpoint: int | None
    accepted: str | None
    created: datetime | None

    @staticmethod
    def of(raw: Raw) -> Row:
        raw = neutralised(raw)
        metadata, status = sub(raw, "metadata"), sub(raw, "status")
        conditions = status.get("conditions")
        listed = conditions if isinstance(conditions, list) else []
        accepted = next((item for item in listed if isinstance(item, dict) and item.get("type") == "Accepted"), {})
        return Row(
            namespace=text(metadata, "namespace", most=253) or "",
            name=text(metadata, "name", most=253) or "",
            phase=text(status, "phase", most=32) or "Pending",
            attempt=number(sub(status, "current"), "attempt"),
            step=number(sub(status, "progress"), "step"),
            resumes=number(sub(status, "counts"), "resumes"),
            kept=number(sub(status, "savings"), "stepsKept"),
            sweep=text(sub(raw, "spec"), "sweepName", most=63) or "",
            run_id=text(status, "runId", most=64),
            checkpoint=number(sub(status, "checkpoint"), "step"),
            accepted=text(accepted, "reason", most=64),
            created=moment(metadata, "creationTimestamp"),
        )


@dataclass(frozen=True, slots=True)
class Run:
    row: Row
    uid: str
    generation: int
    status: SweepRunStatus
    limits: Limits | None
    """None: of another version, unknown."""
    raw: Raw
    """Neutral too."""

    @property
    def name(self) -> str:
        return self.row.name

    @staticmethod
    def of(raw: Raw) -> Run:
        """Raises CommandError(UNREADABLE) where another version has written the status."""
        raw = neutralised(raw)
        row = Row.of(raw)
        try:
            status = SweepRunStatus.model_validate(sub(raw, "status"))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise CommandError(
                Exit.UNREADABLE,
                f"this version of sweeprun cannot read the status of {row.name} (status.{where}: {first['msg']}); "
                f"`sweeprun get {row.name} -o yaml` shows it as it is",
            ) from None
        return Run(
            row=row,
            uid=text(sub(raw, "metadata"), "uid", most=64) or "",
            generation=number(sub(raw, "metadata"), "generation") or 0,
            status=status,
            limits=_limits(raw),
            raw=raw,
        )


def _limits(raw: Raw) -> Limits | None:
    try:
        return Limits.model_validate(sub(raw, "spec", "limits"))
    except ValidationError:
        return None
