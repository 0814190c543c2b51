"""A child that lacks a pod for some seconds is asked about with a dry run, and with nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from support.memory_gateway import MemoryGateway
from support.objects import TIME, condition, current, job, job_pod, run, trainer_pod, workload
from sweeprun_operator.cluster.departures import Departures
from sweeprun_operator.cluster.gateway import GatewayError, RefusedError
from sweeprun_operator.cluster.gather import gather
from sweeprun_operator.core.observation import Refusal
from sweeprun_operator.core.refusals import ASK_SECONDS

SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SAID = 'pods "{name}" is forbidden: exceeded quota: team'
POD = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


@pytest.fixture
def gateway():
    made = MemoryGateway()
    made.fault = lambda method, kind, name: RefusedError(SAID.format(name=name)) if method == "dry-run" else None
    return made


async def refusal(gateway, *, after=ASK_SECONDS):
    found = await gather(
        gateway,
        namespace="default",
        name="run",
        now=SINCE + timedelta(seconds=after),
        cluster_id="c",
        proof=lambda run: {},
        departures=Departures(),
    )
    return found.observation.refusal


def asked(gateway):
    return [(kind, name) for method, kind, name in gateway.calls if method == "dry-run"]


def put_prepare(gateway, *, state="Preparing", role="prepare", **changes):
    gateway.put("SweepRun", run(status={"conditions": [condition("Accepted")], "current": current(state)}))
    made = job(0, role=role)
    made["spec"] = {"template": POD, **changes.pop("spec", {})}
    return gateway.put("Job", {**made, **changes})


def put_attempt(gateway, *, state="Starting", admitted=TIME, spec=None, status=None):
    stands = current(state, admittedTime=admitted, replicas={"master": 1, "worker": 2})
    gateway.put("SweepRun", run(status={"conditions": [condition("Accepted")], "current": stands}))
    replicas = {"Master": {"template": POD}, "Worker": {"replicas": 2, "template": POD}}
    gateway.put("PyTorchJob", workload(0, spec={"pytorchReplicaSpecs": replicas, **(spec or {})}, status=status))


@pytest.mark.parametrize(("state", "role", "name"), [("Preparing", "prepare", "p0"), ("Initializing", "init", "i0")])
async def test_a_job_without_a_pod_is_asked_about(gateway, state, role, name):
    put_prepare(gateway, state=state, role=role)
    found = await refusal(gateway)
    said = SAID.format(name=f"run-{name}-pod")
    assert found == Refusal(what=f"the pod of Job run-{name}", message=said, field="spec.helperPods")
    assert gateway.names("Pod") == []


async def test_what_the_server_would_take_is_no_refusal(gateway):
    gateway.fault = lambda method, kind, name: None
    put_prepare(gateway)
    assert await refusal(gateway) is None
    assert asked(gateway) == [("Pod", "run-p0-pod")]
    assert gateway.names("Pod") == []


async def test_the_first_pod_that_an_attempt_lacks_is_asked_about(gateway):
    put_attempt(gateway)
    gateway.put("Pod", trainer_pod(0, "master", 0))
    gateway.put("Pod", trainer_pod(0, "worker", 0))
    found = await refusal(gateway)
    assert (found.what, found.field) == ("pod run-a0-worker-1", "spec.template")
    assert asked(gateway) == [("Pod", "run-a0-worker-1")]


def has_its_pod(gateway):
    gateway.put("Pod", job_pod(put_prepare(gateway)))


def is_queued(gateway):
    put_prepare(gateway, spec={"suspend": True})


def has_ended(gateway):
    put_prepare(gateway, status={"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]})


def is_of_another_state(gateway):
    put_prepare(gateway, state="Running")


def attempt_is_queued(gateway):
    put_attempt(gateway, spec={"runPolicy": {"suspend": True}})


def attempt_was_not_admitted(gateway):
    put_attempt(gateway, admitted=None)


def attempt_has_failed(gateway):
    put_attempt(gateway, status={"conditions": [{"type": "Failed", "status": "True"}]})


def attempt_has_all_pods(gateway):
    put_attempt(gateway)
    for kind, index in (("master", 0), ("worker", 0), ("worker", 1)):
        gateway.put("Pod", trainer_pod(0, kind, index))


QUIET = [
    has_its_pod,
    is_queued,
    has_ended,
    is_of_another_state,
    attempt_is_queued,
    attempt_was_not_admitted,
    attempt_has_failed,
    attempt_has_all_pods,
]


@pytest.mark.parametrize("scene", QUIET)
async def test_nothing_is_asked_where_nothing_is_missing(gateway, scene):
    scene(gateway)
    assert await refusal(gateway) is None
    assert asked(gateway) == []


async def test_controllers_are_given_some_seconds(gateway):
    put_prepare(gateway)
    assert await refusal(gateway, after=ASK_SECONDS - 1) is None
    assert asked(gateway) == []


@pytest.mark.parametrize(
    "error",
    [
        RefusedError('pods is forbidden: User "sweeprun" cannot create resource "pods" in API group ""'),
        RefusedError('admission webhook "old.test" does not support dry run'),
        GatewayError("POST /api/v1/namespaces/default/pods: no answer within 10 s"),
    ],
)
async def test_a_dry_run_that_cannot_be_made_says_nothing_of_the_pod(gateway, error):
    gateway.fault = lambda method, kind, name: error if method == "dry-run" else None
    put_prepare(gateway)
    assert await refusal(gateway) is None


async def test_a_webhook_that_does_not_answer_is_why_there_is_no_pod(gateway):
    error = GatewayError('POST /pods: 500: Internal error occurred: failed calling webhook "policy.test"')
    gateway.fault = lambda method, kind, name: error if method == "dry-run" else None
    put_prepare(gateway)
    assert "policy.test" in (await refusal(gateway)).message
