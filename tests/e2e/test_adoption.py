"""What an earlier owner left incomplete is taken over, by exactly one, and only where that is the same experiment."""

import json
import os
import time
import uuid

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


def left_by_a_script(told, sweep, run_id, *, silent_seconds):
    """A run that no SweepRun ever owned, with the marker that scripts make."""
    runs = told.volume / "sweep" / sweep / "runs"
    directory = runs / run_id
    (directory / "checkpoints").mkdir(parents=True)
    (directory / f"{run_id}.incomplete").touch()
    then = time.time() - silent_seconds
    for path in (*directory.rglob("*"), directory, runs, runs.parent, runs.parent.parent):
        os.chown(path, 1000, 1000)
        os.utime(path, (then, then))
    return directory


def heir_of_a_script(name, sweep):
    manifest = heir(name, sweep)
    manifest["spec"]["resume"] |= {"adoption": {"scope": "Sweep", "idleSeconds": 60}}
    return manifest


def test_a_bare_marker_left_by_a_script_is_adopted_after_its_silence(story):
    sweep = f"scripted-{uuid.uuid4().hex[:6]}"
    told = story("heir-scripted")
    directory = left_by_a_script(told, sweep, "scripted-run-1", silent_seconds=120)
    told.apply(heir_of_a_script(told.name, sweep))
    told.wait(lambda status: status["counts"]["attempts"] >= 1, "started")
    assert told.status["runId"] == "scripted-run-1"
    told.wait_complete()
    assert json.loads((directory / "result.json").read_text())["runId"] == "scripted-run-1"
    assert not (directory / "scripted-run-1.incomplete").exists()


def test_a_bare_marker_of_a_script_that_may_still_run_is_left_alone(story):
    sweep = f"scripted-{uuid.uuid4().hex[:6]}"
    told = story("heir-hasty")
    directory = left_by_a_script(told, sweep, "scripted-run-1", silent_seconds=0)
    told.apply(heir_of_a_script(told.name, sweep))
    told.wait(lambda status: status["counts"]["attempts"] >= 1, "started")
    assert told.status["runId"] != "scripted-run-1"
    assert [path.name for path in directory.iterdir() if path.is_file()] == ["scripted-run-1.incomplete"]


def test_a_run_whose_owner_lives_is_not_adopted(story):
    alive = story("alive").apply(example("library", "alive"))
    alive.wait_step(20)
    told = story("heir-impatient").apply(heir("heir-impatient", "alive"))
    told.wait(lambda status: status["counts"]["attempts"] >= 1, "started")
    assert told.status["runId"] != alive.status["runId"]
    alive.wait_complete()
