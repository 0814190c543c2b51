"""`sweeprun inspect RUN`: what the status knows of the volume, and how to look at the volume itself."""

from __future__ import annotations

import json
import shlex

from rich.console import Group, RenderableType
from rich.text import Text

from sweeprun_cli.cluster.runs import Run
from sweeprun_cli.plain import NOTHING, moment, optional
from sweeprun_cli.tables import table
from sweeprun_operator.api.status import State
from sweeprun_operator.cluster.fields import sub, text

MOUNT = "/data"
IMAGE = "IMAGE-WITH-SWEEPRUN-CLI"


def render_run(run: Run) -> RenderableType:
    status, checkpoint = run.status, run.status.checkpoint
    storage = sub(run.raw, "spec", "storage")
    claim = sub(storage, "persistentVolumeClaim")
    facts = [
        ("run ID", optional(status.run_id)),
        ("volume", f"claim {claim.get('claimName')}" + (f", subPath {claim['subPath']}" if "subPath" in claim else "")),
        ("run directory", run_directory(run) or NOTHING),
        ("volume ID", optional(status.volume_id)),
        ("configuration", f"{optional(status.config_file)} {optional(status.config_digest)}"),
        ("W&B run", optional(status.wandb_run_id)),
        ("epoch", optional(status.current.epoch if status.current is not None else None)),
        ("earlier runs", ", ".join(f"{one.run_id} ({one.reason})" for one in status.previous_run_ids) or NOTHING),
    ]
    if checkpoint is None:
        facts.append(("verified checkpoint", "none is known"))
    else:
        facts += [
            ("verified checkpoint", f"{checkpoint.path}, step {checkpoint.step}, {checkpoint.format}"),
            ("verified at", moment(checkpoint.verified_time)),
            ("digest", optional(checkpoint.digest)),
        ]
    parts: list[RenderableType] = [table(f"What the status of {run.name} knows", ("what", "value"), facts), Text()]
    parts += [Text(line) for line in how_to_look(run)]
    return Group(*parts)


def run_directory(run: Run) -> str | None:
    """Below the mount; None while there is no run."""
    if run.status.run_id is None:
        return None
    pattern = text(sub(run.raw, "spec", "storage"), "runDirectory") or "sweep/{sweepName}/runs/{runId}"
    return pattern.replace("{sweepName}", run.row.sweep).replace("{runId}", run.status.run_id)


def how_to_look(run: Run) -> list[str]:
    """Commands for a shell: each value of the object is quoted."""
    directory = run_directory(run)
    if directory is None:
        return ["It has no run yet: there is nothing of it on the volume."]
    place = f"{MOUNT}/{directory}"
    namespace = shlex.quote(run.row.namespace)
    lines = ["Look at the volume, read-only, from any image that has sweeprun[cli] (pip install 'sweeprun[cli]'):"]
    overrides = shlex.quote(json.dumps({"spec": _pod(run, place)}))
    lines.append(
        f"  kubectl -n {namespace} run {run.name}-look --rm -i --restart=Never --image={IMAGE} --overrides={overrides}"
    )
    current = run.status.current
    if current is not None and current.state is State.RUNNING:
        mount = text(sub(run.raw, "spec", "storage"), "mountPath") or MOUNT
        pod = f"{run.name}-a{current.attempt}-master-0"
        lines.append("Or in a pod of the attempt, while it runs:")
        lines.append(f"  kubectl -n {namespace} exec {pod} -- ls -lR {shlex.quote(f'{mount}/{directory}')}")
    return lines


def _pod(run: Run, place: str) -> dict[str, object]:
    claim = sub(run.raw, "spec", "storage", "persistentVolumeClaim")
    mount = {"name": "runs", "mountPath": MOUNT, "readOnly": True}
    if "subPath" in claim:
        mount["subPath"] = claim["subPath"]
    return {
        "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": claim.get("claimName")}}],
        "containers": [
            {"name": "look", "image": IMAGE, "command": ["sweeprun", "inspect", place], "volumeMounts": [mount]}
        ],
    }
