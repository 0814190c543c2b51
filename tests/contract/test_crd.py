"""The models, the CRD in crds/ and the chart's copy say the same, and the schema is one that API servers take."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sweeprun_operator.api.crd import CHART_PATH, CRD_PATH, MAX_BYTES, files, main
from sweeprun_operator.api.status import SweepRunStatus

ROOT = Path(__file__).parents[2]
CRD = yaml.safe_load((ROOT / CRD_PATH).read_text())
VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
ALLOWED = {
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
}


def nodes(node, path=""):
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


def below(part) -> Iterator[tuple[str, dict]]:
    return nodes(SCHEMA["properties"][part], part)


@pytest.mark.parametrize("path", [CRD_PATH, CHART_PATH], ids=str)
def test_the_committed_file_is_what_the_models_say(path):
    assert (ROOT / path).read_text() == files()[path], "run `make generate`"


def test_check_names_what_is_stale_and_write_repairs_it(tmp_path, capsys):
    assert main(["check", "--root", str(tmp_path)]) == 1
    assert str(CRD_PATH) in capsys.readouterr().err
    assert main(["write", "--root", str(tmp_path)]) == 0
    assert main(["check", "--root", str(tmp_path)]) == 0


def test_check_is_a_command():
    module = "sweeprun_operator.api.crd"
    assert subprocess.run([sys.executable, "-m", module, "check"], cwd=ROOT).returncode == 0


def test_the_chart_copy_is_the_crd_between_its_conditions():
    lines = (ROOT / CHART_PATH).read_text().splitlines()
    plain = [line for line in lines if "{{" not in line]
    copied = yaml.safe_load("\n".join(plain))
    assert copied["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert copied == CRD
    conditions = [line.strip() for line in lines if "{{" in line]
    assert conditions == ["{{- if .Values.crds.enabled }}", "{{- if .Values.crds.keep }}", "{{- end }}", "{{- end }}"]


def test_the_crd_stays_small():
    assert len((ROOT / CRD_PATH).read_bytes()) < MAX_BYTES


def test_every_node_is_typed_and_says_nothing_forbidden():
    for path, node in nodes(SCHEMA):
        assert node.get("type") in {"object", "array", "string", "integer", "number", "boolean"}, path
        assert set(node) <= ALLOWED, path


def test_every_object_has_known_fields_or_is_opaque_on_purpose():
    opaque = {path for path, node in nodes(SCHEMA) if node.get("x-kubernetes-preserve-unknown-fields")}
    assert opaque == {
        ".spec.config",
        ".spec.init.template",
        ".spec.helperPods.securityContext",
        ".spec.helperPods.imagePullSecrets[]",
        ".spec.helperPods.tolerations[]",
        ".spec.helperPods.resources",
        ".spec.template.metadata",
        ".spec.template.spec",
    }
    for path, node in nodes(SCHEMA):
        if node["type"] == "object" and path not in opaque and path != ".metadata":
            assert "properties" in node or "additionalProperties" in node, path


@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_string_list_and_map_is_bounded(part):
    for path, node in below(part):
        if node["type"] == "string":
            assert "maxLength" in node or "enum" in node or node.get("format") == "date-time", path
        if node["type"] == "array":
            assert "maxItems" in node, path
            assert node["x-kubernetes-list-type"] in {"atomic", "map"}, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_conditions_are_merged_by_type():
    conditions = SCHEMA["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_status_has_no_defaults_and_no_rules_that_could_refuse_the_operators_write():
    for path, node in below("status"):
        assert "default" not in node, path
        assert "x-kubernetes-validations" not in node, path


def test_rules_have_messages_for_people():
    for path, node in nodes(SCHEMA):
        for rule in node.get("x-kubernetes-validations", []):
            assert len(rule["message"]) > 30, path
            assert "self" not in rule["message"].split(), path


@pytest.mark.parametrize("column", VERSION["additionalPrinterColumns"], ids=lambda column: column["name"])
def test_every_printer_column_and_selectable_field_is_in_the_schema(column):
    paths = {path for path, _ in nodes(SCHEMA)} | {".metadata.creationTimestamp"}
    assert column["jsonPath"].partition("[?")[0] in paths
    for field in VERSION["selectableFields"]:
        assert field["jsonPath"] in paths


def test_a_full_status_is_far_below_what_etcd_takes():
    """Bounded lists times bounded strings; etcd refuses objects of 1.5 MiB."""
    assert longest(SCHEMA["properties"]["status"]) < 600_000
    assert SweepRunStatus().to_wire()


def longest(node) -> int:
    """An upper bound of the node's JSON, in characters."""
    if "properties" in node:
        return sum(len(name) + 4 + longest(child) for name, child in node["properties"].items())
    if "items" in node:
        return node["maxItems"] * (longest(node["items"]) + 1)
    if "additionalProperties" in node:
        return node["maxProperties"] * (longest(node["additionalProperties"]) + 256)
    return node.get("maxLength", 64) + 2
