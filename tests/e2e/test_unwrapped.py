"""A container without a command: what its image starts by itself is resumed and completed as any other."""

from support.continuation import EARLY, SLOWLY, check_continued, pace
from support.story import example, named, replicas, with_arguments


def without_command(name):
    """The image's entry point is `python`: what stood behind it in the command becomes its arguments."""
    manifest = example("plain", name)
    for replica in replicas(manifest):
        trainer = named(replica["template"]["spec"], "pytorch")
        python, *rest = trainer.pop("command")
        assert python == "python"
        trainer["args"] = [*rest, *trainer["args"]]
    return manifest


def test_what_an_image_starts_by_itself_goes_on_after_an_eviction_and_completes(story, undisturbed):
    told = story("unwrapped").apply(with_arguments(without_command("unwrapped"), *SLOWLY))
    assert "EnvOnly" in told.wait_condition("Accepted")["message"]
    told.wait_step(EARLY)
    pace(told)
    told.cluster.evict(told.pod("worker-0"))
    status = check_continued(told, "plain", undisturbed, cause="EvictionAPI", since=EARLY)
    assert status["history"][-1]["cause"] == "Completed"
    assert status["result"]["step"] == 240, "of the newest checkpoint: no end record tells"
