"""ResourceQuota, LimitRange and Pod Security on a real API server: what they refuse is shown, with the way out."""

from __future__ import annotations

import pytest

from support.cluster import RefusedError
from support.manifests import make_claim, make_container, make_pod, make_sweeprun, make_template
from support.passes import Passes
from sweeprun_operator.core.refusals import ASK_SECONDS

NAME = "run"


def limit_range(cluster, **limits):
    spec = {"limits": [{"type": "Container", **limits}]}
    cluster.create({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "sizes"}, "spec": spec})


def quota(cluster, **hard):
    """With the status that its controller would fill in."""
    made = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}, "spec": {"hard": hard}}
    cluster.create(made)
    room(cluster, **hard)


def room(cluster, **hard):
    status = {"hard": hard, "used": dict.fromkeys(hard, "0")}
    cluster.patch("ResourceQuota", "team", {"status": status}, subresource="/status")


def restricted(cluster):
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.patch("Namespace", cluster.namespace, {"metadata": {"labels": labels}})


@pytest.fixture
def tell(gateway, decisions, cluster):
    def begin(**spec):
        cluster.create(make_claim())
        cluster.create(make_sweeprun(NAME, **spec))
        return Passes(gateway, decisions, cluster, NAME)

    return begin


async def later(story):
    """A pass after the controllers have had their time."""
    story.advance(ASK_SECONDS)
    await story.settle()
    return story.condition("Stuck")


async def starts(story):
    await story.starts()
    await story.settle()


async def test_a_prepare_over_quota_is_shown_within_seconds_and_goes_on(tell, cluster):
    quota(cluster, pods="0")
    story = tell()
    await story.child("Job", "run-p0")
    stuck = await later(story)
    assert (stuck["status"], stuck["reason"]) == ("True", "QuotaExceeded")
    assert "the pod of Job run-p0 is refused" in stuck["message"]
    assert "exceeded quota: team, requested: pods=1, used: pods=0, limited: pods=0" in stuck["message"]
    assert cluster.list("Pod") == []
    with pytest.raises(RefusedError, match="exceeded quota"):
        story.played.start_helper("run-p0")
    room(cluster, pods="5")
    await starts(story)
    assert story.condition("Stuck")["status"] == "False"
    assert story.status["counts"]["neverStarted"] == 0


async def test_a_prepare_that_fits_is_not_complained_of(tell, cluster):
    quota(cluster, pods="1")
    story = tell()
    await story.child("Job", "run-p0")
    assert await later(story) == {}
    assert cluster.list("Pod") == []


async def test_a_quota_that_only_one_of_two_pods_fits_names_the_other(tell, cluster):
    story = tell()
    await starts(story)
    quota(cluster, pods="1")
    with pytest.raises(RefusedError, match="exceeded quota"):
        story.played.start_attempt("run-a0")
    stuck = await later(story)
    assert stuck["reason"] == "QuotaExceeded"
    assert "pod run-a0-worker-0 is refused" in stuck["message"]
    room(cluster, pods="5")
    story.played.start_attempt("run-a0")
    await story.state("Running")
    assert story.condition("Stuck")["status"] == "False"


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max": {"cpu": "1"}}, "maximum cpu usage per Container is 1, but limit is 2"),
        ({"min": {"cpu": "500m"}}, "minimum cpu usage per Container is 500m, but request is 50m"),
        ({"maxLimitRequestRatio": {"cpu": "4"}}, "cpu max limit to request ratio per Container is 4"),
    ],
)
async def test_a_limit_range_that_a_prepare_breaks_is_named_and_helper_pods_can_be_fitted(tell, cluster, limits, said):
    limit_range(cluster, **limits)
    story = tell()
    await story.child("Job", "run-p0")
    stuck = await later(story)
    assert stuck["reason"] == "LimitRange"
    assert said in stuck["message"]
    assert "change spec.helperPods" in stuck["message"]
    cluster.delete("SweepRun", NAME)
    cluster.delete("Job", "run-p0")
    fitting = {"requests": {"cpu": "500m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    cluster.create(make_sweeprun("other", helperPods={"resources": fitting}))
    other = Passes(story.gateway, story.decisions, cluster, "other")
    await other.child("Job", "other-p0")
    assert await later(other) == {}


async def test_what_is_added_to_the_users_pods_breaks_no_limit_that_they_keep(tell, cluster):
    """The container that brings the entrypoint takes after the training container."""
    limit_range(cluster, min={"cpu": "500m"}, max={"cpu": "2"}, maxLimitRequestRatio={"cpu": "2"})
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
    own = {"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}}
    pod = make_pod(make_container(resources=resources))
    story = tell(template=make_template(pod=pod), helperPods={"resources": own})
    await starts(story)
    assert await later(story) == {}
    assert len(story.played.start_attempt("run-a0")) == 2


async def test_pod_security_names_what_the_template_lacks(tell, cluster):
    restricted(cluster)
    story = tell()
    await starts(story)
    stuck = await later(story)
    assert stuck["reason"] == "PodSecurity"
    assert 'violates PodSecurity "restricted:latest"' in stuck["message"]
    assert 'container "pytorch" must set securityContext.allowPrivilegeEscalation=false' in stuck["message"]
    assert "change spec.template" in stuck["message"]


async def test_a_quota_of_jobs_is_shown_and_goes_on(tell, cluster):
    quota(cluster, **{"count/jobs.batch": "0"})
    story = tell()
    for _ in range(4):
        assert (await story.one()).failed or not story.condition("Accepted")
    stuck = story.condition("Stuck")
    assert stuck["reason"] == "QuotaExceeded"
    assert "Job run-p0 is refused" in stuck["message"]
    assert [event["reason"] for event in cluster.events_of(NAME)].count("Stuck") == 1
    room(cluster, **{"count/jobs.batch": "5"})
    await story.child("Job", "run-p0")
