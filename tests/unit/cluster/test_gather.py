"""One pass reads what its decision needs, and nothing for nothing."""

from datetime import UTC, datetime

import pytest

from support.memory_gateway import MemoryGateway
from support.objects import answering, condition, current, ended, job, job_pod, report, run, trainer_pod, workload
from sweeprun_operator.cluster.departures import Departures
from sweeprun_operator.cluster.gateway import GatewayError, NotFoundError, RefusedError
from sweeprun_operator.cluster.gather import UnreadableRunError, gather
from sweeprun_operator.core.observation import Claim, OwnerState
from sweeprun_protocol.prepare import Candidate
from sweeprun_protocol.reasons import Outcome
from sweeprun_protocol.records import Owner

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ACCEPTED = {"conditions": [condition("Accepted")]}
RUNNING = {**ACCEPTED, "current": current("Running")}


def proof(run):
    return {"metadata": {"name": f"{run.metadata.name}-a0"}}


def refuse(method, kind, error):
    return lambda called, of, name: error if (called, of) == (method, kind) else None


@pytest.fixture
def gateway():
    return MemoryGateway()


async def observe(gateway, *, proof=proof, departures=None):
    found = await gather(
        gateway,
        namespace="default",
        name="run",
        now=NOW,
        cluster_id="cluster-1",
        proof=proof,
        departures=departures or Departures(),
    )
    return found.observation if found is not None else None


async def test_a_run_that_is_gone_is_nothing(gateway):
    assert await observe(gateway) is None


async def test_what_belongs_to_the_run_is_sorted(gateway):
    gateway.put("SweepRun", run(status=RUNNING))
    prepare = gateway.put("Job", job(0))
    gateway.put("Pod", job_pod(prepare, status=answering(report(0))))
    gateway.put("PyTorchJob", workload(0))
    gateway.put("Pod", trainer_pod(0))
    gateway.put("Pod", {"metadata": {"name": "somebody-elses"}})
    seen = await observe(gateway)
    assert seen.now == NOW
    assert seen.cluster_id == "cluster-1"
    assert [helper.name for helper in seen.jobs] == ["run-p0"]
    assert seen.jobs[0].report is not None
    assert [one.name for one in seen.workloads] == ["run-a0"]
    assert [pod.name for pod in seen.pods] == ["run-a0-worker-0"]


async def test_the_run_is_read_before_its_children(gateway):
    gateway.put("SweepRun", run(status=RUNNING))
    await observe(gateway)
    assert gateway.calls[0] == ("get", "SweepRun", "run")


async def test_a_disrupted_pod_that_is_gone_is_known_from_the_watch(gateway):
    departures = Departures()
    marked = {"phase": "Running", "conditions": [condition("DisruptionTarget", reason="PreemptionByScheduler")]}
    gateway.put("SweepRun", run(status=RUNNING))
    pod = gateway.put("Pod", trainer_pod(0, status=marked))
    departures.heard(pod)
    seen = await observe(gateway, departures=departures)
    assert (len(seen.pods), seen.departed) == (1, ())
    await gateway.delete("Pod", "default", pod["metadata"]["name"], uid=pod["metadata"]["uid"])
    seen = await observe(gateway, departures=departures)
    assert [(one.name, one.disruption) for one in seen.departed] == [("run-a0-worker-0", "PreemptionByScheduler")]
    assert seen.pods == ()


async def test_a_run_that_the_models_refuse_is_unreadable(gateway):
    raw = gateway.put("SweepRun", run())
    del raw["spec"]["sweepName"]
    with pytest.raises(UnreadableRunError, match=r"spec\.sweepName"):
        await observe(gateway)


async def test_a_new_run_is_tried_on_the_server(gateway):
    gateway.put("SweepRun", run())
    gateway.put("PersistentVolumeClaim", {"metadata": {"name": "sweeps"}, "spec": {"accessModes": ["ReadWriteMany"]}})
    acceptance = (await observe(gateway)).acceptance
    assert acceptance.claim.found
    assert acceptance.claim.access_modes == ("ReadWriteMany",)
    assert (acceptance.problem, acceptance.transient) == (None, False)
    assert ("dry-run", "PyTorchJob", "run-a0") in gateway.calls
    assert gateway.names("PyTorchJob") == []


@pytest.mark.parametrize(
    ("status", "asked"),
    [
        (None, True),
        ({"conditions": [condition("Accepted", "False")]}, True),
        ({"conditions": [condition("Accepted", observedGeneration=0)]}, True),
        (ACCEPTED, False),
        ({"current": current("Finished")}, False),
    ],
)
async def test_acceptance_is_asked_once_for_each_generation(gateway, status, asked):
    gateway.put("SweepRun", run(status=status))
    assert ((await observe(gateway)).acceptance is not None) is asked


@pytest.mark.parametrize(
    ("error", "problem", "transient"),
    [
        (RefusedError("no Master"), "no Master", False),
        (NotFoundError("no such kind"), "is training-operator installed?", True),
        (GatewayError("webhook away"), "webhook away", True),
    ],
)
async def test_what_the_dry_run_says_is_kept(gateway, error, problem, transient):
    gateway.put("SweepRun", run())
    gateway.fault = refuse("dry-run", "PyTorchJob", error)
    acceptance = (await observe(gateway)).acceptance
    assert problem in acceptance.problem
    assert acceptance.transient is transient


async def test_a_spec_that_allows_no_workload_needs_no_server_to_say_so(gateway):
    def impossible(run):
        raise ValueError("container 'pytorch' is not in the template")

    gateway.put("SweepRun", run())
    acceptance = (await observe(gateway, proof=impossible)).acceptance
    assert acceptance.problem == "container 'pytorch' is not in the template"


async def test_the_name_of_a_dry_run_may_be_taken(gateway):
    gateway.put("SweepRun", run())
    gateway.put("PyTorchJob", workload(0))
    assert (await observe(gateway)).acceptance.problem is None


async def test_a_cluster_without_pytorchjobs_is_believed_only_of_a_run_that_never_had_one(gateway):
    gateway.fault = refuse("list", "PyTorchJob", NotFoundError("the server could not find the requested resource"))
    gateway.put("SweepRun", run())
    assert (await observe(gateway)).workloads == ()
    gateway.put("SweepRun", run(status=RUNNING))
    with pytest.raises(NotFoundError):
        await observe(gateway)


def node(name, ready):
    return {"metadata": {"name": name}, "status": {"conditions": [condition("Ready", ready)]}}


BROKEN = {"phase": "Failed", "containerStatuses": [{"name": "pytorch", "state": ended(1)}]}


async def test_nodes_are_read_once_something_went_wrong(gateway):
    gateway.put("SweepRun", run(status=RUNNING))
    for index, (name, ready) in enumerate((("up", "True"), ("down", "Unknown"))):
        gateway.put("Node", node(name, ready))
        gateway.put("Pod", trainer_pod(index=index, node=name))
    gateway.put("Pod", trainer_pod(index=2, node="gone", status=BROKEN))
    assert (await observe(gateway)).unready_nodes == {"down", "gone"}


async def test_nodes_of_a_healthy_run_are_left_alone(gateway):
    gateway.put("SweepRun", run(status=RUNNING))
    gateway.put("Pod", trainer_pod(node="gone"))
    assert (await observe(gateway)).unready_nodes == frozenset()
    assert not [call for call in gateway.calls if call[1] == "Node"]


async def test_the_claim_is_read_while_something_of_a_running_attempt_goes_wrong(gateway):
    gateway.put("SweepRun", run(status=RUNNING))
    gateway.put("PersistentVolumeClaim", {"metadata": {"name": "sweeps"}, "spec": {"accessModes": ["ReadWriteMany"]}})
    gateway.put("Pod", trainer_pod())
    assert (await observe(gateway)).claim is None
    assert not [call for call in gateway.calls if call[1] == "PersistentVolumeClaim"]
    gateway.put("Pod", trainer_pod(index=1, status=BROKEN))
    assert (await observe(gateway)).claim == Claim(found=True, access_modes=("ReadWriteMany",))


async def test_nodes_that_may_not_be_read_are_not_called_unready(gateway):
    gateway.put("SweepRun", run(status=RUNNING))
    gateway.put("Pod", trainer_pod(status=BROKEN))
    gateway.fault = refuse("get", "Node", RefusedError("forbidden"))
    assert (await observe(gateway)).unready_nodes == frozenset()


OWNER = Owner(cluster="cluster-1", namespace="other", name="before", uid="uid-before")


def with_candidate(gateway, owner=OWNER, *, idle=0, **spec):
    candidate = Candidate(run_id="r1", epoch=3, owner=owner, idle_seconds=idle)
    gateway.put("SweepRun", run(status={**ACCEPTED, "current": current("Preparing", prepare=2)}, **spec))
    prepare = gateway.put("Job", job(2))
    said = report(2, Outcome.CANDIDATES, candidates=(candidate,))
    gateway.put("Pod", job_pod(prepare, status=answering(said)))


async def gone(gateway):
    return (await observe(gateway)).owners


async def test_an_owner_that_was_deleted_is_gone(gateway):
    with_candidate(gateway)
    assert await gone(gateway) == {"r1": OwnerState.GONE}


async def test_an_owner_that_lives_is_not_gone(gateway):
    with_candidate(gateway)
    gateway.put("SweepRun", run("before", uid="uid-before"), namespace="other")
    gateway.objects["SweepRun", "other", "before"] = run("before", uid="uid-before", status=RUNNING)
    assert await gone(gateway) == {"r1": OwnerState.ALIVE}


@pytest.mark.parametrize(
    ("uid", "kind", "proved"),
    [
        ("uid-before", "Failed", OwnerState.GONE),
        ("uid-before", "Running", OwnerState.ALIVE),
        ("new", "Running", OwnerState.GONE),
    ],
)
async def test_an_owner_that_ended_or_was_made_anew_is_gone(gateway, uid, kind, proved):
    with_candidate(gateway)
    gateway.objects["SweepRun", "other", "before"] = run("before", uid=uid, status={"conditions": [condition(kind)]})
    assert await gone(gateway) == {"r1": proved}


FINISHED = {"conditions": [condition("Complete")]}


@pytest.mark.parametrize(
    ("kind", "child", "proved"),
    [
        ("PyTorchJob", workload(0, uid="uid-before"), OwnerState.ENDING),
        ("Job", job(0, uid="uid-before"), OwnerState.ENDING),
        ("Job", job(0, uid="uid-before", status=FINISHED), OwnerState.GONE),
        ("Pod", job_pod(job(0, uid="uid-before")), OwnerState.ENDING),
        ("Pod", job_pod(job(0, uid="uid-before"), status={"phase": "Failed"}), OwnerState.GONE),
    ],
)
async def test_an_owner_that_left_something_that_acts_is_not_gone(gateway, kind, child, proved):
    with_candidate(gateway)
    gateway.objects[kind, "other", child["metadata"]["name"]] = child
    assert await gone(gateway) == {"r1": proved}


async def test_a_trainers_pod_counts_though_it_says_that_it_failed(gateway):
    with_candidate(gateway)
    pod = trainer_pod(status={"phase": "Failed"})
    pod["metadata"]["labels"]["sweeprun.dev/uid"] = "uid-before"
    gateway.objects["Pod", "other", "left"] = pod
    assert await gone(gateway) == {"r1": OwnerState.ENDING}


async def test_an_owner_that_may_not_be_read_is_not_proved_to_be_gone(gateway):
    with_candidate(gateway)
    gateway.fault = lambda method, kind, name: RefusedError("forbidden") if name == "before" else None
    assert await gone(gateway) == {"r1": OwnerState.ALIVE}


async def test_an_error_while_looking_is_no_proof_either_way(gateway):
    with_candidate(gateway)
    gateway.fault = lambda method, kind, name: GatewayError("away") if name == "before" else None
    with pytest.raises(GatewayError):
        await gone(gateway)


@pytest.mark.parametrize("owner", [None, Owner(cluster="another", namespace="n", name="m", uid="u")])
@pytest.mark.parametrize(("idle", "proved"), [(899, OwnerState.ALIVE), (900, OwnerState.GONE)])
async def test_whom_nobody_can_look_up_has_to_be_silent_for_long(gateway, owner, idle, proved):
    with_candidate(gateway, owner, idle=idle)
    assert await gone(gateway) == {"r1": proved}


async def test_candidates_of_an_older_prepare_are_not_looked_up(gateway):
    with_candidate(gateway)
    gateway.put("SweepRun", run(status={**ACCEPTED, "current": current("Preparing", prepare=3)}))
    assert await gone(gateway) == {}
