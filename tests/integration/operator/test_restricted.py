"""In a namespace that enforces Pod Security `restricted`, every pod of a run whose template keeps to it is admitted."""

from __future__ import annotations

import pytest

from support.cluster import RefusedError
from support.manifests import make_claim, make_container, make_init, make_pod, make_sweeprun, make_template
from support.passes import Passes
from support.reports import FRESH, make_report
from sweeprun_protocol.reasons import Outcome

NAME = "run"
SECURE_POD = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
SECURE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.fixture
def begin(cluster, gateway, decisions):
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.patch("Namespace", cluster.namespace, {"metadata": {"labels": labels}})
    cluster.create(make_claim())

    def make(**spec):
        cluster.create(make_sweeprun(NAME, **spec))
        return Passes(gateway, decisions, cluster, NAME)

    return make


def template(security=SECURE, pod_security=SECURE_POD):
    container = make_container(securityContext=security)
    return make_template(pod=make_pod(container, securityContext=pod_security))


def init():
    made = make_init()
    made["template"]["spec"]["containers"][0]["securityContext"] = SECURE
    return made


async def test_all_of_them_are_admitted(begin, cluster):
    """Prepare, sweep_init, training pods with what is added to them, and the survey of the drain."""
    story = begin(template=template(), init=init(), resume={"adoption": {"scope": "None"}})
    await story.child("Job", f"{NAME}-p0")
    story.played.answer(f"{NAME}-p0", make_report(0, Outcome.INIT_REQUIRED))
    await story.child("Job", f"{NAME}-i0")
    story.played.answer(f"{NAME}-i0", FRESH)
    await story.child("PyTorchJob", f"{NAME}-a0")
    _, worker = story.played.start_attempt(f"{NAME}-a0")
    await story.state("Running")
    story.played.end_pod(worker, 1)
    story.played.job_status(f"{NAME}-a0", "Failed")
    await story.until(lambda: cluster.get("Job", f"{NAME}-s0"), "a survey looks on")
    story.played.start_helper(f"{NAME}-s0")
    made = {pod["metadata"]["name"].rsplit("-", 1)[0] for pod in cluster.list("Pod")}
    assert {f"{NAME}-p0", f"{NAME}-i0", f"{NAME}-a0-master", f"{NAME}-s0"} <= made


async def test_a_template_that_does_not_keep_to_it_is_not_made_to(begin):
    story = begin(template=template(security={}))
    await story.child("Job", f"{NAME}-p0")
    story.played.answer(f"{NAME}-p0", FRESH)
    await story.child("PyTorchJob", f"{NAME}-a0")
    with pytest.raises(RefusedError, match="must set securityContext"):
        story.played.start_attempt(f"{NAME}-a0")
