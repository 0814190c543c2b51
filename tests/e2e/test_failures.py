"""The program's own failures are counted as such, bounded, and left by a request."""

from support.story import example, named, replicas, with_arguments


def test_a_script_that_crashes_fails_after_its_budget_and_retry_continues_it(story):
    name = "crashing"
    manifest = with_arguments(example("plain", name), "--crash-at", "130")
    manifest["spec"]["limits"]["maxFailures"] = 1
    told = story(name).apply(manifest)
    failed = told.wait_condition("Failed", timeout=300)
    assert failed["reason"] == "MaxFailuresExceeded"
    status = told.status
    assert status["counts"]["disruptions"] == 0
    assert status["counts"]["failures"] >= 1
    assert status["history"][-1]["cause"] == "ApplicationError"
    assert "crashed on request" in status["history"][-1]["evidence"], "the log's tail is the evidence"
    repaired = example("plain", name)
    told.cluster.patch(
        "SweepRun",
        name,
        {"spec": {"template": repaired["spec"]["template"], "request": {"id": "1", "action": "Retry"}}},
    )
    told.wait_condition("Failed", status="False")
    status = told.wait_complete()
    assert status["lastRequest"]["id"] == "1"
    assert told.history()[-1]["outcome"] == "Resume"
    assert told.history()[-1]["fromStep"] >= 100


def test_out_of_memory_is_a_failure_not_a_disruption(story):
    name = "hungry"
    manifest = with_arguments(example("plain", name), "--eat-memory-at", "60")
    for replica in replicas(manifest):
        resources = named(replica["template"]["spec"], "pytorch").setdefault("resources", {})
        resources["limits"] = {**resources.get("limits", {}), "memory": "900Mi"}
    manifest["spec"]["limits"]["maxFailures"] = 1
    told = story(name).apply(manifest)
    failed = told.wait_condition("Failed", timeout=300)
    assert failed["reason"] == "MaxFailuresExceeded"
    assert told.status["counts"]["disruptions"] == 0
    assert "OOMKilled" in [attempt.get("cause") for attempt in told.history()]


def test_stop_ends_a_run_for_good_and_keeps_its_checkpoints(story):
    told = story("stopped").apply(example("library", "stopped"))
    told.wait_step(60)
    told.cluster.patch("SweepRun", "stopped", {"spec": {"request": {"id": "1", "action": "Stop"}}})
    failed = told.wait_condition("Failed")
    assert failed["reason"] == "Stopped"
    assert told.checkpoints()
