"""What an earlier owner left incomplete is taken over, by exactly one, and only where that is the same experiment."""

import json
import os

from support.cluster import eventually
from support.story import example


def left_behind(story, name):
    """A run interrupted by the deletion of its SweepRun; returns its sweep and run ID."""
    told = story(name).apply(example("library", name))
    told.wait_step(60)
    uid = told.run["metadata"]["uid"]
    run_id, directory = told.status["runId"], told.run_directory
    told.cluster.delete("SweepRun", name)
    selector = f"sweeprun.dev/uid={uid}"
    eventually(lambda: not told.cluster.list("Pod", selector=selector), "all its pods are gone", timeout=120)
    assert (directory / ".incomplete").exists()
    return told, run_id


def heir(name, sweep, **spec):
    manifest = example("library", name)
    manifest["spec"]["sweepName"] = sweep
    manifest["spec"].update(spec)
    return manifest


def test_of_five_sweepruns_applied_at_once_exactly_one_adopts_the_run(story, undisturbed):
    old, run_id = left_behind(story, "deceased")
    heirs = [story(f"heir-{number}").apply(heir(f"heir-{number}", old.name, suspend=False)) for number in range(5)]
    for told in heirs:
        told.wait(lambda status: status.get("runId") and status["counts"]["attempts"] >= 1, "started")
    adopters = [told for told in heirs if told.status["runId"] == run_id]
    assert len(adopters) == 1, [told.status["runId"] for told in heirs]
    assert len({told.status["runId"] for told in heirs}) == 5
    for told in heirs:
        if told is not adopters[0]:
            told.cluster.delete("SweepRun", told.name)
    adopter = adopters[0]
    assert adopter.history()[0]["outcome"] == "Resume"
    adopter.wait_complete()
    assert adopter.digest() == undisturbed("library").digest()


def test_another_configuration_does_not_adopt(story):
    old, run_id = left_behind(story, "deceased-other")
    told = story("heir-other").apply(heir("heir-other", old.name, config={"lr": "0.5"}))
    told.wait(lambda status: status["counts"]["attempts"] >= 1, "started")
    assert told.status["runId"] != run_id
    assert told.history()[0]["reason"] == "FirstStart"


def test_a_bare_marker_left_by_a_script_is_adopted_after_its_silence(story, shared):
    sweep, run_id = "scripted", "scripted-run-1"
    told = story("heir-scripted")
    directory = told.volume / "sweep" / sweep / "runs" / run_id
    (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
    (directory / f"{run_id}.incomplete").touch()
    for path in (directory, *directory.parents):
        if path == shared:
            break
        os.chown(path, 1000, 1000)
    for path in directory.rglob("*"):
        os.chown(path, 1000, 1000)
    manifest = heir(told.name, sweep)
    manifest["spec"]["resume"] = manifest["spec"].get("resume", {}) | {"adoption": {"scope": "Sweep", "idleSeconds": 5}}
    told.apply(manifest)
    told.wait(lambda status: status["counts"]["attempts"] >= 1, "started")
    assert told.status["runId"] == run_id
    told.wait_complete()
    assert json.loads((directory / "result.json").read_text())["runId"] == run_id
    assert not (directory / f"{run_id}.incomplete").exists()


def test_a_run_whose_owner_lives_is_not_adopted(story):
    alive = story("alive").apply(example("library", "alive"))
    alive.wait_step(20)
    told = story("heir-impatient").apply(heir("heir-impatient", "alive"))
    told.wait(lambda status: status["counts"]["attempts"] >= 1, "started")
    assert told.status["runId"] != alive.status["runId"]
    alive.wait_complete()
