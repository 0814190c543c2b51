"""Reading a manifest: what is wrong is said where it stands."""

from __future__ import annotations

import pytest
import yaml

from support.objects import run
from sweeprun_cli.local.manifest import ManifestError, load


@pytest.fixture
def write(tmp_path):
    def written(*documents):
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump_all(documents))
        return path

    return written


def test_a_manifest_is_read(write):
    found = load(write(run("digits")))
    assert found.run.metadata.name == "digits"
    assert found.run.spec.sweep_name == "sweep"


def test_other_objects_in_the_file_are_passed_over(write):
    assert load(write({"kind": "PersistentVolumeClaim"}, run("digits"))).run.metadata.name == "digits"


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("spec.limits.maxFailures=1", ("limits", "maxFailures"), 1),
        ("spec.resume.args=[--from, x]", ("resume", "args"), ["--from", "x"]),
        ("spec.resume.args[0]=--from", ("resume", "args"), ["--from"]),
        ("spec.suspend=true", ("suspend",), True),
        (
            "spec.template.spec.pytorchReplicaSpecs.Master.template.spec.containers[0].command[1]=other.py",
            ("template", "spec", "pytorchReplicaSpecs", "Master", "template", "spec", "containers", 0, "command"),
            ["python", "other.py"],
        ),
    ],
)
def test_a_field_can_be_set(write, change, path, value):
    found = load(write(run()), changes=[change]).raw["spec"]
    for part in path:
        found = found[part]
    assert found == value


@pytest.mark.parametrize("change", ["spec.suspend", "=1", "spec.sweepName.x=1", "spec.resume.args[3]=1", "spec.x=["])
def test_a_change_that_cannot_be_made_is_told(write, change):
    with pytest.raises(ManifestError, match="--set"):
        load(write(run()), changes=[change])


def test_what_the_model_refuses_is_told_with_the_path_of_the_field(write):
    with pytest.raises(ManifestError, match=r"run\.yaml: spec\.limits\.maxFailures: Input should be greater"):
        load(write(run(limits={"maxFailures": 0})))


def test_a_misspelt_field_is_told_with_the_one_that_was_meant(write):
    storage = {"persistentVolumeClaim": {"claimNam": "sweeps"}, "quite": "another"}
    with pytest.raises(ManifestError) as refused:
        load(write(run(storage=storage)))
    told = str(refused.value).splitlines()
    assert any(line.endswith("persistentVolumeClaim.claimName: missing; it has no default") for line in told)
    assert any(line.endswith("claimNam: there is no such field; claimName is one") for line in told)
    assert any(line.endswith("spec.storage.quite: there is no such field") for line in told)


def test_a_rule_between_fields_is_told_in_its_own_words(write):
    with pytest.raises(ManifestError, match=r"run\.yaml: spec: config and init exclude each other"):
        load(write(run(config={"lr": 1}, init={"template": {}})))


def test_what_an_image_starts_by_itself_cannot_be_played(write):
    where = "spec.template.spec.pytorchReplicaSpecs.Master.template.spec.containers[0].command"
    with pytest.raises(ManifestError, match=r"containers\[pytorch\]\.command: missing; local mode has no images"):
        load(write(run()), changes=[f"{where}=null"])


def test_every_mistake_is_told_at_once(write):
    with pytest.raises(ManifestError) as caught:
        load(write(run(limits={"maxFailures": 0}, unknown=1)))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([], "there are 0"),
        ([{"kind": "Job"}], "the file holds: Job"),
        ([run("a"), run("b")], "there are 2"),
        ([{**run(), "apiVersion": "sweeprun.dev/v2"}], "must be sweeprun.dev/v1alpha1"),
        ([{**run(), "metadata": {}}], "metadata.name: missing"),
    ],
)
def test_a_file_without_exactly_one_run_is_told(write, documents, said):
    with pytest.raises(ManifestError, match=said):
        load(write(*documents))


def test_a_file_that_is_none_is_told(tmp_path):
    with pytest.raises(ManifestError, match="No such file"):
        load(tmp_path / "missing.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ManifestError, match="is no YAML"):
        load(tmp_path / "broken.yaml")
