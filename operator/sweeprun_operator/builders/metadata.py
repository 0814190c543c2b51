"""Names, labels and owner references of children: the only code that makes names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sweeprun_operator.api.v1alpha1 import API_VERSION, KIND, SweepRun
from sweeprun_protocol import keys

Manifest = dict[str, Any]

HASH_CHARACTERS = 16


def prepare_name(run: SweepRun, number: int) -> str:
    return f"{run.metadata.name}-p{number}"


def survey_name(run: SweepRun, number: int) -> str:
    return f"{run.metadata.name}-s{number}"


def init_name(run: SweepRun, number: int) -> str:
    return f"{run.metadata.name}-i{number}"


def attempt_name(run: SweepRun, number: int) -> str:
    return f"{run.metadata.name}-a{number}"


def init_key(run: SweepRun) -> str:
    """Stable for one fresh start, other for the next: sweep_init may use it to do its work once."""
    return f"{run.metadata.uid}-{fresh_number(run)}"


def fresh_number(run: SweepRun) -> int:
    """Of the fresh start that may come now: 0 names the first run."""
    return run.status.counts.fresh_starts + (1 if run.status.run_id is not None else 0)


def own_labels(run: SweepRun, *, role: str, number: int) -> dict[str, str]:
    return {
        keys.MANAGED_BY_LABEL: keys.MANAGED_BY,
        keys.NAME_LABEL: run.metadata.name,
        keys.UID_LABEL: run.metadata.uid,
        keys.ROLE_LABEL: role,
        keys.NUMBER_LABEL: str(number),
        keys.SWEEP_LABEL: run.spec.sweep_name,
    }


def child_metadata(
    run: SweepRun,
    name: str,
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    metadata: Manifest = {
        "name": name,
        "namespace": run.metadata.namespace,
        "labels": dict(labels),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": run.metadata.name,
                "uid": run.metadata.uid,
                "controller": True,
            }
        ],
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return metadata


def template_hash(run: SweepRun) -> str:
    """Of the template as it is; the same for the same content in any order of keys."""
    text = json.dumps(run.spec.template.to_wire(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_CHARACTERS]
