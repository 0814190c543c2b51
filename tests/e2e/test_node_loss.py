"""A node goes away with pods of a run on it: taken, dead, forgotten. Nothing begins while they may still write.

All of it happens to one node that nothing else runs on; this file is told beside the others, one story at a time.
"""

import pytest

from support.continuation import EARLY, SLOWLY, check_continued, check_wandb_continued, pace, wait_stuck
from support.nodes import MAINTENANCE, attract, follow
from support.story import example, with_arguments

pytestmark = pytest.mark.nodes


def apply(story, kind, name, *, on_the_node="Worker"):
    """A slow run with one of its two ranks on the node that will be lost."""
    manifest = with_arguments(example(kind, name), *SLOWLY)
    attract(manifest["spec"]["template"]["spec"]["pytorchReplicaSpecs"][on_the_node])
    return apply_apart(story, manifest)


def apply_apart(story, manifest):
    """With prepare pods that stay away from the node, and as short a wait for it as can be."""
    manifest["spec"]["helperPods"] = {"tolerations": []}
    manifest["spec"]["unreachable"] = {"tolerationSeconds": 1}
    return story(manifest["metadata"]["name"]).apply(manifest)


def wait_early(node, told, slot):
    told.wait_step(EARLY)
    assert told.cluster.get("Pod", told.pod(slot))["spec"]["nodeName"] == node.name


def test_a_taint_that_pods_do_not_tolerate(node, story, undisturbed, journal):
    told = apply(story, "library", "tainted")
    wait_early(node, told, "worker-0")
    pace(told)
    node.taint(MAINTENANCE, effect="NoExecute")
    check_continued(told, "library", undisturbed, cause="Taint", since=EARLY)
    check_wandb_continued(told, journal)
    assert told.history()[0]["node"] == node.name


def test_a_node_that_loses_power_and_an_admin_who_says_that_it_is_off(node, story, undisturbed, journal):
    """The condition names the command; it is taken at its word."""
    runs = {
        "library": apply(story, "library", "powerless-worker"),
        "plain": apply(story, "plain", "powerless-master", on_the_node="Master"),
    }
    wait_early(node, runs["library"], "worker-0")
    wait_early(node, runs["plain"], "master-0")
    node.cut_power()
    for told in runs.values():
        pace(told)
    advice = [wait_stuck(told, node.name)["message"] for told in runs.values()]
    follow(node.cluster, advice[0])
    for kind, told in runs.items():
        check_continued(told, kind, undisturbed, cause="Taint", since=EARLY)
        assert told.condition("Stuck")["status"] == "False"
    check_wandb_continued(runs["library"], journal)


def test_a_node_whose_object_is_deleted_while_it_works(node, story, undisturbed):
    told = apply(story, "library", "forgotten")
    wait_early(node, told, "worker-0")
    pace(told)
    node.forget()
    check_continued(told, "library", undisturbed, cause="NodeGone", since=EARLY)
