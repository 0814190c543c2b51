"""A node stands still, the run goes on elsewhere, and then the node wakes up with the old processes on it.

What they write late is whole and of a higher step than anything that the run has by then; it is never read.
"""

import json
from pathlib import Path

import pytest

from support import late_writer
from support.cluster import eventually
from support.continuation import check_continued, wait_stuck
from support.nodes import MAINTENANCE, attract, follow
from support.story import SOON, named, of_one_rank
from sweeprun_protocol.exit_codes import ExitCode

pytestmark = pytest.mark.nodes

BASE, LATE = (late_writer.SAVE - 1) * SOON, late_writer.SAVE * SOON
"""Steps: the newest checkpoint when the node stands still, and the one that is written after it wakes up."""
OLD_POD = "master-0"


def apply(story, kind, name, *, policy="Wait"):
    """A run on the node that stands still in the middle of a save."""
    manifest = of_one_rank(kind, name)
    replica = manifest["spec"]["template"]["spec"]["pytorchReplicaSpecs"]["Master"]
    attract(replica)
    pod = replica["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = 10
    pod["shareProcessNamespace"] = True
    named(pod, "pytorch")["command"] = ["python", "-c", Path(late_writer.__file__).read_text(), kind]
    manifest["spec"]["helperPods"] = {"tolerations": []}
    manifest["spec"]["unreachable"] = {"tolerationSeconds": 1, "policy": policy}
    return story(name).apply(manifest)


def wait_held(told, node):
    told.wait_step(BASE)
    eventually((told.run_directory / late_writer.HELD).exists, f"{told.name} stands still", timeout=30)
    assert told.cluster.get("Pod", told.pod(OLD_POD))["spec"]["nodeName"] == node.name


def wait_base(told):
    """What the next attempt starts from, once it runs elsewhere."""
    told.wait_attempt(1)
    base = told.decision(2)["base"]
    assert base["step"] == BASE
    return base


def wake(node, *runs):
    for told in runs:
        (told.run_directory / late_writer.GO).touch()
    node.taint(MAINTENANCE, effect="NoSchedule")  # just back, it may be given up once more: not under the next attempt
    node.thaw()
    for told in runs:
        eventually(lambda told=told: (LATE, 1) in saved(told), f"{told.name}: the late checkpoint", timeout=60)
        assert (told.run_directory / "claims" / "000002.json").exists()


def saved(told):
    return [(step, epoch) for step, epoch, _ in told.checkpoints()]


def exit_code(told):
    """Of the old process, as its entrypoint recorded it."""
    record = Path(told.layout.end(1, OLD_POD))
    eventually(record.exists, f"{told.name}: the end of the old process", timeout=60)
    return json.loads(record.read_text())["exitCode"]


def interrupt_again(told):
    """Before the next attempt has saved anything: there the late checkpoint would be chosen."""
    assert {epoch for _, epoch in saved(told)} == {1}
    told.cluster.evict(told.pod(OLD_POD))


def check_late_checkpoint_is_never_read(told, kind, base, by_itself):
    check_continued(told, kind, by_itself, cause="Taint", attempts=3, since=BASE)
    assert told.decision(3)["base"] == base
    assert [attempt["fromStep"] for attempt in told.history()[1:]] == [BASE, BASE]
    assert [attempt["cause"] for attempt in told.history()] == ["Taint", "EvictionAPI", "Completed"]
    assert (LATE, 1) in saved(told), "it is still there"


def test_a_node_that_was_called_off_and_comes_back(node, story, by_itself):
    """The admin who set the taint was wrong. The old process has looked for a later claim and goes on to commit; then
    its entrypoint looks, and ends it."""
    told = apply(story, "library", "frozen-library")
    wait_held(told, node)
    node.freeze()
    follow(node.cluster, wait_stuck(told, node.name)["message"])
    base = wait_base(told)
    wake(node, told)
    assert exit_code(told) == ExitCode.FENCED
    interrupt_again(told)
    check_late_checkpoint_is_never_read(told, "library", base, by_itself)


def test_a_forced_deletion_and_the_node_that_comes_back(node, story, by_itself, journal):
    """Nobody waits for the node: what its processes could still spoil is copied, and W&B gets another, linked run."""
    library = apply(story, "library", "zombie-library", policy="ForceDelete")
    plain = apply(story, "plain", "zombie-plain", policy="ForceDelete")
    runs = {"library": library, "plain": plain}
    for told in runs.values():
        wait_held(told, node)
    first = library.status["wandbRunId"]
    node.freeze()
    bases = {kind: wait_base(told) for kind, told in runs.items()}
    for told in runs.values():
        forced = told.history()[0]["forced"]
        assert (forced["pods"], forced["nodes"]) == ([f"{told.name}-a0-{OLD_POD}"], [node.name])
        assert "ForceDeleted" in told.event_reasons()
    wake(node, *runs.values())
    assert exit_code(library) == ExitCode.FENCED
    exit_code(plain)
    assert bases["plain"]["path"].startswith("epochs/2/resume/"), "out of the old process's reach"
    (old,) = [path for step, epoch, path in plain.checkpoints() if (step, epoch) == (BASE, 1)]
    assert old.read_bytes() == late_writer.DAMAGE, "the checkpoint that was copied"
    for told in runs.values():
        interrupt_again(told)
    for kind, told in runs.items():
        check_late_checkpoint_is_never_read(told, kind, bases[kind], by_itself)
    check_wandb_linked(library, journal, first)


def check_wandb_linked(told, journal, first):
    """The old process may log to the old run what it did late. The new one has every step, the earlier ones from the
    checkpoint, and knows nothing of that."""
    status = told.status
    assert (status["wandbRunId"], status["previousWandbRunId"]) == (f"{first}-e2", first)
    before, after = journal(first), journal(f"{first}-e2")
    assert after.raw["config"]["sweeprun/previous_wandb_run"]["value"] == first
    assert after.overlapping_writers() == []
    assert after.steps == list(range(1, 101))
    assert before.inserted_count == after.inserted_count == 1
    assert max(before.steps, default=0) <= LATE + SOON
