"""The CustomResourceDefinition, made from the models: `python -m sweeprun_operator.api.crd write|check`.

`write` writes crds/ and the chart's copy, which the chart may leave out and keeps on uninstall where it is told to.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from sweeprun_protocol.keys import GROUP

from . import generated
from .rules import VALIDATIONS
from .spec import SweepRunSpec
from .status import SweepRunStatus
from .structural import Node, SchemaError, structural_schema
from .v1alpha1 import KIND, PLURAL, VERSION, SweepRun

NAME = f"{PLURAL}.{GROUP}"
CRD_PATH = Path("crds") / f"{GROUP}_{PLURAL}.yaml"
CHART_PATH = Path("charts") / "sweeprun" / "templates" / "crds" / f"{PLURAL}.yaml"
HEADER = "# Generated from operator/sweeprun_operator/api by `make generate`; do not edit.\n"
MAX_BYTES = 60_000
"""kubectl apply keeps a second copy in an annotation, which has 256 KiB; small also stays readable."""

_COLUMNS = (
    ("Phase", "string", ".status.phase", 0, "Where the run stands"),
    ("Attempt", "integer", ".status.current.attempt", 0, "Number of the attempt, from 0"),
    ("Step", "integer", ".status.progress.step", 0, "Last step seen"),
    ("Resumes", "integer", ".status.counts.resumes", 0, "Attempts that went on from a checkpoint"),
    ("Kept", "integer", ".status.savings.stepsKept", 0, "Steps that need not be repeated thanks to resumes"),
    ("Sweep", "string", ".spec.sweepName", 1, "The sweep that the run belongs to"),
    ("Run", "string", ".status.runId", 1, "Run ID"),
    ("Checkpoint", "integer", ".status.checkpoint.step", 1, "Step of the last verified checkpoint"),
    (
        "Accepted",
        "string",
        '.status.conditions[?(@.type=="Accepted")].reason',
        1,
        "Reason of the condition",
    ),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Since the SweepRun was created"),
)
SELECTABLE = (".spec.sweepName", ".status.phase")


def definition() -> Node:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["srun"],
                "categories": ["sweeps"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
                    "selectableFields": [{"jsonPath": path} for path in SELECTABLE],
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


def _schema() -> Node:
    return {
        "description": " ".join((SweepRun.__doc__ or "").split()),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural_schema(SweepRunSpec),
            # The operator writes status whole: defaults would only make up what it did not say.
            "status": structural_schema(SweepRunStatus, defaults=False),
        },
        VALIDATIONS: [rule.to_wire() for rule in SweepRun.RULES],
    }


def _column(name: str, kind: str, path: str, priority: int, description: str) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return {**column, "priority": priority} if priority else column


def rendered() -> str:
    """The file in crds/."""
    return HEADER + _yaml(definition())


def chart_copy() -> str:
    """The same for Helm: a template, since Helm never upgrades what lies in a chart's crds/ folder."""
    whole = definition()
    body = _yaml({"spec": whole["spec"]})
    if "{{" in body:
        raise SchemaError("a description or rule holds {{, which Helm would take for its own")
    return (
        f"{HEADER}{{{{- if .Values.crds.enabled }}}}\n"
        f"apiVersion: {whole['apiVersion']}\n"
        f"kind: {whole['kind']}\n"
        "metadata:\n"
        f"  name: {NAME}\n"
        "  {{- if .Values.crds.keep }}\n"
        "  annotations:\n"
        "    helm.sh/resource-policy: keep\n"
        "  {{- end }}\n"
        f"{body}{{{{- end }}}}\n"
    )


def _yaml(value: Node) -> str:
    return yaml.dump(value, Dumper=_NoAliases, sort_keys=False, width=120, allow_unicode=True)


class _NoAliases(yaml.SafeDumper):
    """The same list in two places is written twice: aliases are for machines."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  (the name is PyYAML's)
        return True


def files() -> dict[Path, str]:
    return {CRD_PATH: rendered(), CHART_PATH: chart_copy()}


def main(arguments: list[str] | None = None) -> int:
    program = "python -m sweeprun_operator.api.crd"
    return generated.main(files(), program=program, source="the models say", arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
