"""A wrong manifest is refused at apply, or Accepted=False says what to do; nothing is created for it."""

import pytest

from support.cluster import RefusedError
from support.story import example, named, replicas


def wrong(name, change):
    manifest = example("library", name)
    change(manifest)
    return manifest


def rename_container(manifest):
    for replica in replicas(manifest):
        named(replica["template"]["spec"], "pytorch")["name"] = "trainer"


def wandb_agent(manifest):
    for replica in replicas(manifest):
        container = named(replica["template"]["spec"], "pytorch")
        container["command"] = ["wandb", "agent", "me/digits/abc123"]
        container.pop("args", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest["spec"].update(runId="a/b"), "runId"),
        (lambda manifest: manifest["metadata"].update(name="x" * 45), "44"),
        (lambda manifest: manifest["spec"]["storage"].update(runDirectory="../{runId}"), "runDirectory"),
    ],
    ids=["run ID with a slash", "name too long", "run directory leaves the volume"],
)
def test_refused_at_apply(change, message, cluster):
    with pytest.raises(RefusedError, match=message):
        cluster.create(wrong("refused", change))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            "wrong-claim",
            lambda manifest: manifest["spec"]["storage"].update(persistentVolumeClaim={"claimName": "nowhere"}),
            ["nowhere", "PersistentVolumeClaim"],
        ),
        ("wrong-container", rename_container, ["pytorch", "trainer"]),
        ("wrong-agent", wandb_agent, ["wandb agent"]),
        (
            "wrong-job",
            lambda manifest: manifest["spec"]["template"]["spec"]["pytorchReplicaSpecs"]["Master"].update(replicas=2),
            ["Master"],
        ),
    ],
    ids=["missing claim", "no container named pytorch", "wandb agent", "two masters"],
)
def test_not_accepted_with_what_to_do_and_nothing_created(name, change, words, story):
    told = story(name).apply(wrong(name, change))
    condition = told.wait_condition("Accepted", status="False", timeout=60)
    for word in words:
        assert word in condition["message"], condition
    check_nothing_created(told)


def test_two_replicas_on_a_claim_for_one_pod_are_not_accepted(story, volume_of):
    volume_of("single", mode="ReadWriteOncePod")
    manifest = example("library", "wrong-mode")
    manifest["spec"]["storage"]["persistentVolumeClaim"] = {"claimName": "single"}
    told = story("wrong-mode").apply(manifest)
    condition = told.wait_condition("Accepted", status="False", timeout=60)
    assert "ReadWriteOncePod" in condition["message"]
    check_nothing_created(told)


def check_nothing_created(told):
    selector = f"sweeprun.dev/uid={told.run['metadata']['uid']}"
    for kind in ("Job", "PyTorchJob", "Pod"):
        assert told.cluster.list(kind, selector=selector) == []
