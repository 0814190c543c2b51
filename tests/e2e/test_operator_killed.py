"""The operator may die at any stage of a recovery, and so may a prepare pod: the outcome is the same."""

import pytest

from support.cluster import eventually
from support.story import example

SYSTEM = "sweeprun-system"


def kill_operator(cluster):
    """Without grace, as an out-of-memory kill or a lost node would; the Deployment brings another one."""
    system = cluster.in_namespace(SYSTEM)
    pods = system.list("Pod", selector="app.kubernetes.io/name=sweeprun")
    assert pods, "no operator pod found"
    for pod in pods:
        system.delete("Pod", pod["metadata"]["name"], grace=0)


@pytest.mark.alone
@pytest.mark.parametrize("state", ["Draining", "Preparing", "Starting", "Running"])
def test_the_operator_is_killed_at_each_stage_of_a_recovery(state, story, undisturbed, cluster):
    name = f"orphaned-{state.lower()}"
    told = story(name).apply(example("library", name))
    told.wait_step(100)
    told.cluster.evict(told.pod("worker-0"))
    if state == "Running":
        told.wait_attempt(1)
    else:
        told.wait(
            lambda status: (
                status["current"]["state"] == state
                and (state != "Starting" or status["current"]["attempt"] == 1)
                and (state != "Preparing" or status["current"]["prepare"] == 1)
            ),
            f"the recovery is {state}",
        )
    kill_operator(cluster)
    status = told.wait_complete(timeout=400)
    assert status["counts"]["attempts"] == 2
    assert status["counts"]["disruptions"] == 1
    assert told.history()[0]["cause"] == "EvictionAPI"
    assert told.digest() == undisturbed("library").digest()


def test_a_prepare_pod_evicted_in_the_middle_is_not_taken_for_no_checkpoint(story, undisturbed, cluster):
    name = "prepare-evicted"
    told = story(name).apply(example("library", name))
    told.wait_step(100)
    uid = told.run["metadata"]["uid"]
    told.cluster.evict(told.pod("worker-0"))
    selector = f"sweeprun.dev/uid={uid},sweeprun.dev/role=prepare,sweeprun.dev/number=1"
    pod = eventually(lambda: cluster.list("Pod", selector=selector), "the prepare pod", timeout=60, every=0.05)[0]
    cluster.evict(pod["metadata"]["name"])
    status = told.wait_complete()
    assert status["counts"]["resumes"] == 1
    assert status["counts"]["restarts"] == 0
    assert status["counts"]["freshStarts"] == 0
    assert told.digest() == undisturbed("library").digest()
