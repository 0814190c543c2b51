"""Raw objects become what decisions know; hostile ones become nothing, or a problem, never an exception."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.objects import (
    TIME,
    UID,
    answering,
    condition,
    ended,
    job,
    job_pod,
    metadata,
    report,
    trainer_pod,
    with_labels,
    workload,
)
from sweeprun_operator.cluster.observe import attempt_pods, helper_jobs, workloads
from sweeprun_operator.core.observation import JobPhase, PodPhase, Role
from sweeprun_protocol.keys import NUMBER_LABEL, ROLE_LABEL
from sweeprun_protocol.reasons import Outcome

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def helper(job_raw, *pods):
    (found,) = helper_jobs([job_raw], pods, owner_uid=UID)
    return found


def pod_of(raw):
    (found,) = attempt_pods([raw])
    return found


def test_a_prepare_that_answered_has_a_report_before_its_job_says_so():
    raw = job(3)
    found = helper(raw, job_pod(raw, status=answering(report(3, Outcome.RESTART))))
    assert found.phase is JobPhase.SUCCEEDED
    assert found.report is not None
    assert found.report.outcome is Outcome.RESTART
    assert (found.role, found.number, found.owned, found.problem) == (Role.PREPARE, 3, True, None)
    assert found.finished == WHEN


def test_a_survey_gives_no_answer_whatever_its_pod_says():
    raw = job(3, role="survey")
    found = helper(raw, job_pod(raw, status=answering(report(3, Outcome.RESTART))))
    assert (found.role, found.report, found.problem, found.phase) == (Role.SURVEY, None, None, JobPhase.ACTIVE)


def test_the_answer_of_an_earlier_pod_stands_though_a_later_one_was_made():
    raw = job(1)
    earlier = job_pod(raw, created="2026-01-02T03:04:01Z", status=answering(report(1)))
    later = job_pod(raw, created="2026-01-02T03:04:09Z")
    assert helper(raw, earlier, later).report is not None


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (None, "gave no answer"),
        ("", "gave no answer"),
        ("{", "cannot be read"),
        ("x" * 100_000, "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"prepare": 0}', "cannot be read"),
        ("\ud800", "cannot be read"),
        (report(7), "of prepare 7, not of prepare 0"),
        (7, "gave no answer"),
    ],
)
def test_an_answer_that_cannot_be_used_is_a_problem_and_no_report(message, problem):
    raw = job(0, status={"conditions": [condition("Complete")]})
    found = helper(raw, job_pod(raw, status=answering(message)))
    assert found.report is None
    assert problem in found.problem
    assert len(found.problem) <= 512


def test_a_complete_job_whose_pod_is_gone_has_lost_its_answer():
    found = helper(job(0, status={"conditions": [condition("Complete")]}))
    assert found.phase is JobPhase.SUCCEEDED
    assert "gone" in found.problem


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (
            {
                "phase": "Failed",
                "containerStatuses": [{"name": "prepare", "state": ended(137, "x", reason="OOMKilled")}],
            },
            "container prepare ended with 137 (OOMKilled): x",
        ),
        (
            {"phase": "Failed", "conditions": [condition("DisruptionTarget", reason="EvictionByEvictionAPI")]},
            "its pod was disrupted: EvictionByEvictionAPI",
        ),
        (
            {"initContainerStatuses": [{"name": "init", "state": ended(2, "no such file", reason="Error")}]},
            "container init ended with 2 (Error): no such file",
        ),
        (
            {"containerStatuses": [{"name": "p", "state": {"waiting": {"reason": "ErrImagePull", "message": "404"}}}]},
            "container p is waiting: ErrImagePull: 404",
        ),
        ({"containerStatuses": [{"name": "p", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, None),
        (
            {"conditions": [condition("PodScheduled", "False", message="0/3 nodes are available")]},
            "its pod is not scheduled: 0/3 nodes are available",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, "its pod failed: Evicted: disk"),
        ({"phase": "Running"}, None),
    ],
)
def test_why_a_prepare_has_no_answer_yet(status, problem):
    raw = job(0)
    found = helper(raw, job_pod(raw, status=status))
    assert found.phase is JobPhase.ACTIVE
    assert found.report is None
    assert found.problem == problem


def test_a_failed_job_tells_its_pods_problem_and_its_own():
    raw = job(0, status={"conditions": [condition("Failed", reason="BackoffLimitExceeded", message="three times")]})
    broken = {"containerStatuses": [{"name": "prepare", "state": ended(1, reason="Error")}]}
    found = helper(raw, job_pod(raw, status=broken))
    assert found.phase is JobPhase.FAILED
    assert found.problem == "container prepare ended with 1 (Error); BackoffLimitExceeded: three times"
    assert found.finished == WHEN


@pytest.mark.parametrize(
    "labels",
    [{NUMBER_LABEL: "-1"}, {NUMBER_LABEL: "9" * 40}, {NUMBER_LABEL: None}, {ROLE_LABEL: "x"}, {ROLE_LABEL: None}],
)
def test_a_job_that_is_none_of_our_helpers_is_passed_over(labels):
    assert helper_jobs([with_labels(job(0), labels)], [], owner_uid=UID) == ()


def test_a_job_of_another_controller_is_not_owned():
    assert not helper(job(0, ownerReferences=[{"uid": "else", "controller": True}])).owned
    assert not helper(job(0, ownerReferences=[{"uid": UID, "controller": False}])).owned


def test_a_workloads_end_and_suspension_are_read():
    raw = workload(
        2,
        spec={"runPolicy": {"suspend": True}},
        status={"conditions": [condition("Failed", message="m" * 2000), condition("Succeeded", "False")]},
    )
    (found,) = workloads([raw], owner_uid=UID)
    assert (found.attempt, found.failed, found.succeeded, found.suspended) == (2, True, False, True)
    assert found.failure_message == "m" * 512
    assert found.finished == WHEN


def test_a_healthy_pod_shows_no_trouble():
    status = {
        "phase": "Running",
        "conditions": [condition("PodScheduled"), condition("DisruptionTarget", "False")],
        "containerStatuses": [{"name": "pytorch", "state": {"running": {"startedAt": TIME}}}],
    }
    found = pod_of(trainer_pod(1, "worker", 3, status=status))
    assert (found.attempt, found.slot, found.phase, found.node) == (1, "worker-3", PodPhase.RUNNING, "node-1")
    assert (found.scheduled, found.unschedulable, found.disruption, found.deleting) == (True, None, None, False)
    assert found.containers[0].started
    assert found.containers[0].exit_code is None


def test_an_evicted_pod_shows_its_disruption():
    status = {
        "phase": "Failed",
        "conditions": [condition("DisruptionTarget", reason="EvictionByEvictionAPI", message="API")],
        "containerStatuses": [{"name": "pytorch", "state": ended(143, "tail of the log", reason="Error")}],
    }
    raw = trainer_pod(status=status)
    raw["metadata"]["deletionTimestamp"] = TIME
    found = pod_of(raw)
    assert (found.disruption, found.disruption_message, found.disruption_time) == ("EvictionByEvictionAPI", "API", WHEN)
    assert found.deleting
    container = found.containers[0]
    assert (container.exit_code, container.reason, container.message) == (143, "Error", "tail of the log")


@pytest.mark.parametrize(
    ("state", "started"),
    [
        ({"waiting": {"reason": "ContainerCreating"}}, False),
        ({"running": {}}, True),
        (ended(1), True),
        (ended(128, reason="StartError", startedAt="1970-01-01T00:00:00Z"), False),
        (ended(137, reason="ContainerStatusUnknown", startedAt=None), True),
        ({}, False),
    ],
)
def test_whether_a_container_ever_ran(state, started):
    found = pod_of(trainer_pod(status={"containerStatuses": [{"name": "pytorch", "state": state}]}))
    assert found.containers[0].started is started


def test_of_a_long_log_the_end_is_kept_which_holds_the_error():
    log = "Traceback (most recent call last):\n" + "  a line of it\n" * 200 + "RuntimeError: out of paper"
    failed = ended(1, message=log)
    message = (
        pod_of(trainer_pod(status={"containerStatuses": [{"name": "pytorch", "state": failed}]})).containers[0].message
    )
    assert len(message) == 512
    assert message.endswith("RuntimeError: out of paper")
    prepare = job(0)
    shown = helper(prepare, job_pod(prepare, status={"containerStatuses": [{"name": "prepare", "state": failed}]}))
    assert shown.problem.startswith("container prepare ended with 1")
    assert shown.problem.endswith("RuntimeError: out of paper")


def test_a_pod_without_replica_labels_stays_visible():
    raw = with_labels(trainer_pod(), {"training.kubeflow.org/replica-index": None})
    assert pod_of(raw).slot == "unknown-0"


def test_a_phase_of_the_future_is_unknown():
    assert pod_of(trainer_pod(status={"phase": "Resting"})).phase is PodPhase.UNKNOWN


def test_pods_of_helpers_are_no_pods_of_attempts():
    raw = job(0)
    assert attempt_pods([job_pod(raw)]) == ()


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
shaped = st.fixed_dictionaries(
    {},
    optional={
        "phase": junk,
        "conditions": junk | st.just([{"type": "PodScheduled", "status": "False", "message": 3}]),
        "containerStatuses": junk | st.lists(st.fixed_dictionaries({"name": junk, "state": junk}), max_size=2),
        "initContainerStatuses": junk,
        "completionTime": junk,
    },
)


@given(status=shaped, spec=junk)
def test_no_shape_of_an_object_is_an_exception(status, spec):
    helpers = {**job(0), "status": status}
    pod = {**job_pod(job(0)), "status": status, "spec": spec}
    helper_jobs([helpers], [pod], owner_uid=UID)
    workloads([{"metadata": metadata("a", role="attempt", number=0), "status": status, "spec": spec}], owner_uid=UID)
    (found,) = attempt_pods([{**trainer_pod(), "status": status, "spec": spec}])
    assert all(len(container.message or "") <= 512 for container in found.containers)
