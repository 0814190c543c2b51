"""Every command and manifest in the documents is one that a test runs: both are read side by side."""

import re
from pathlib import Path

import pytest
import yaml

from sweeprun_operator.api.v1alpha1 import SweepRun

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")

RUN_BY_E2E = {"kubectl", "export"}
"""First words of documented commands that the end-to-end tests run against the cluster in the same form."""


def blocks(language):
    return [
        pytest.param(document, text, id=f"{document.name}-{number}")
        for document in DOCUMENTS
        for number, (kind, text) in enumerate(FENCE.findall(document.read_text()))
        if kind == language
    ]


def targets():
    return set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize(("document", "text"), blocks("sh"))
def test_every_documented_command_is_one_that_is_run(document, text):
    for line in filter(None, map(str.strip, text.splitlines())):
        first, *rest = line.split()
        if first == "make":
            assert rest[0] in targets(), f"{document.name}: `{line}` is no target of the Makefile"
        elif first == "helm":
            installs = (ROOT / "hack" / "cluster.sh").read_text()
            lacking = [word for word in rest if not word.startswith("charts/") and word not in installs]
            assert not lacking, f"{document.name}: hack/cluster.sh installs without {lacking}"
        else:
            assert first in RUN_BY_E2E, f"{document.name}: no test runs `{line}`"
        for path in re.findall(r"(?:examples|charts|hack)/[\w./-]+", line):
            assert (ROOT / path).exists(), f"{document.name}: {path} is not there"


@pytest.mark.parametrize(("document", "text"), blocks("yaml"))
def test_every_documented_manifest_is_a_sweeprun(document, text):
    manifest = yaml.safe_load(text)
    manifest["metadata"]["uid"] = "u"
    SweepRun.model_validate(manifest)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document):
    for target in LINK.findall(document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"
