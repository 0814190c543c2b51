"""Every manifest in examples/ is one that the models take, and names a script that is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sweeprun_cli.local.containers import IMAGE_EXAMPLES
from sweeprun_operator.api.v1alpha1 import SweepRun

EXAMPLES = Path(__file__).parents[2] / "examples"
MANIFESTS = sorted(EXAMPLES.rglob("*.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_the_models_take_it_and_its_scripts_are_there(path):
    manifest = yaml.safe_load(path.read_text())
    SweepRun.from_wire({**manifest, "metadata": {**manifest["metadata"], "uid": "u"}})
    named = [word for word in path.read_text().replace("]", " ").replace(",", " ").split() if IMAGE_EXAMPLES in word]
    assert named, "no script of the example is named"
    for word in named:
        assert (EXAMPLES / word.partition(f"{IMAGE_EXAMPLES}/")[2]).exists(), word
