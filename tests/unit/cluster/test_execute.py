"""The status first and only on what was read; then children, of which a crash repeats none, and beside them Events."""

import asyncio
from datetime import UTC, datetime

import pytest

from support.memory_gateway import MemoryGateway
from support.objects import UID, condition, job, run, workload
from sweeprun_operator.api.status import SweepRunStatus
from sweeprun_operator.cluster import execute as execution
from sweeprun_operator.cluster.departures import Departures
from sweeprun_operator.cluster.execute import Result, execute
from sweeprun_operator.cluster.gateway import GatewayError, RefusedError
from sweeprun_operator.cluster.gather import gather
from sweeprun_operator.core.plan import ChildKind, Create, Delete, DeleteRun, Event, EventType, Plan

STATUS = SweepRunStatus(phase="Preparing", observed_generation=1)
EVENT = Event(EventType.NORMAL, "Preparing", "prepare 0 was made")


@pytest.fixture
def gateway():
    made = MemoryGateway()
    made.put("SweepRun", run(status={"conditions": [condition("Accepted")]}))
    return made


def proof(run):
    return {"metadata": {"name": "run-a0"}}


async def read(gateway):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return await gather(
        gateway, namespace="default", name="run", now=now, cluster_id="c", proof=proof, departures=Departures()
    )


async def carry_out(gateway, *, told=lambda before, after: None, gathered=None, **plan):
    gathered = gathered or await read(gateway)
    gateway.calls.clear()
    return await execute(gateway, gathered, Plan(**plan), told=told)


def written(gateway):
    return [call for call in gateway.calls if call[0] not in ("get", "list")]


async def test_the_status_is_written_before_anything_else(gateway):
    create = Create(ChildKind.JOB, job(0))
    result = await carry_out(gateway, status=STATUS, actions=(create,), events=(EVENT,))
    assert result.result is Result.DONE
    first, *others = written(gateway)
    assert first == ("replace", "SweepRun", "run")
    assert sorted(others) == [("create", "Job", "run-p0"), ("emit", "Event", "Preparing")]
    assert gateway.read("SweepRun", "run")["status"]["phase"] == "Preparing"


async def test_children_are_made_one_after_the_other(gateway):
    wanted = (Create(ChildKind.JOB, job(0)), Create(ChildKind.PYTORCHJOB, workload(0)))
    gateway.fault = lambda method, kind, name: GatewayError("away") if kind == "Job" else None
    with pytest.raises(GatewayError):
        await carry_out(gateway, actions=wanted)
    assert gateway.names("PyTorchJob") == []


class Meeting:
    """Requests that are answered once so many of them wait."""

    def __init__(self, count):
        self._barrier = asyncio.Barrier(count)

    def of(self, method):
        async def request(*arguments, **options):
            async with asyncio.timeout(10):
                await self._barrier.wait()
            return await method(*arguments, **options)

        return request


async def test_deletions_in_a_row_are_asked_side_by_side(gateway, monkeypatch):
    for number in range(3):
        gateway.put("Job", job(number))
    monkeypatch.setattr(gateway, "delete", Meeting(3).of(gateway.delete))
    deletions = [Delete(ChildKind.JOB, f"run-p{number}", f"uid-of-run-p{number}") for number in range(3)]
    assert (await carry_out(gateway, actions=tuple(deletions))).result is Result.DONE
    assert gateway.names("Job") == []


async def test_a_deletion_that_fails_ends_the_pass_when_those_beside_it_are_done(gateway):
    for number in range(2):
        gateway.put("Job", job(number))
    gateway.fault = lambda method, kind, name: GatewayError("away") if (method, name) == ("delete", "run-p0") else None
    deletions = [Delete(ChildKind.JOB, f"run-p{number}", f"uid-of-run-p{number}") for number in range(2)]
    with pytest.raises(GatewayError):
        await carry_out(gateway, actions=(*deletions, Create(ChildKind.PYTORCHJOB, workload(0))))
    assert gateway.names("Job") == ["run-p0"]
    assert gateway.names("PyTorchJob") == []


async def test_events_are_told_beside_the_children_that_are_made(gateway, monkeypatch):
    meeting = Meeting(2)
    for name in ("create", "emit"):
        monkeypatch.setattr(gateway, name, meeting.of(getattr(gateway, name)))
    result = await carry_out(gateway, status=STATUS, actions=(Create(ChildKind.JOB, job(0)),), events=(EVENT,))
    assert result.result is Result.DONE


async def test_what_the_status_says_is_told_even_where_a_child_cannot_be_made(gateway):
    gateway.fault = lambda method, kind, name: GatewayError("away") if method == "create" else None
    with pytest.raises(GatewayError):
        await carry_out(gateway, status=STATUS, actions=(Create(ChildKind.JOB, job(0)),), events=(EVENT,))
    assert len(gateway.events) == 1


async def test_a_status_that_did_not_change_is_not_written(gateway):
    gathered = await read(gateway)
    await carry_out(gateway, gathered=gathered, status=gathered.observation.run.status)
    assert written(gateway) == []


async def test_a_conflict_on_the_status_ends_the_pass(gateway):
    gathered = await read(gateway)
    gateway.put("SweepRun", gateway.read("SweepRun", "run"))
    create = Create(ChildKind.JOB, job(0))
    result = await carry_out(gateway, gathered=gathered, status=STATUS, actions=(create,), events=(EVENT,))
    assert result.result is Result.STALE
    assert gateway.names("Job") == []
    assert gateway.events == []


async def test_children_are_made_only_while_the_status_stands_that_asks_for_them(gateway):
    """A process that slept between reading and writing, while another went on, has nothing to write in the status."""
    gathered = await read(gateway)
    gateway.put("SweepRun", gateway.read("SweepRun", "run"))
    result = await carry_out(gateway, gathered=gathered, actions=(Create(ChildKind.JOB, job(0)),))
    assert result.result is Result.STALE
    assert gateway.names("Job") == []


async def test_a_status_that_stands_is_confirmed_and_not_told(gateway):
    told = []
    create = Create(ChildKind.JOB, job(0))
    result = await carry_out(gateway, actions=(create,), told=lambda before, after: told.append(after))
    assert result.result is Result.DONE
    assert written(gateway) == [("replace", "SweepRun", "run"), ("create", "Job", "run-p0")]
    assert told == []


async def test_a_run_deleted_meanwhile_ends_the_pass(gateway):
    gathered = await read(gateway)
    gateway.remove("SweepRun", "run")
    assert (await carry_out(gateway, gathered=gathered, status=STATUS)).result is Result.STALE


async def test_every_written_status_is_told_and_no_other(gateway):
    heard = []
    await carry_out(gateway, told=lambda before, after: heard.append((before.phase, after.phase)), status=STATUS)
    assert heard == [("Pending", "Preparing")]
    gateway.fault = lambda method, kind, name: GatewayError("away") if method == "replace" else None
    with pytest.raises(GatewayError):
        await carry_out(gateway, told=lambda *statuses: heard.append(statuses), status=SweepRunStatus(phase="Other"))
    assert len(heard) == 1


async def test_a_child_that_is_there_under_our_uid_was_made_by_us(gateway):
    gateway.put("Job", job(0))
    assert (await carry_out(gateway, actions=(Create(ChildKind.JOB, job(0)),))).result is Result.DONE


async def test_a_child_of_somebody_else_is_never_adopted(gateway):
    gateway.put("Job", job(0, ownerReferences=[{"uid": "else", "controller": True}]))
    wanted = (Create(ChildKind.JOB, job(0)), Create(ChildKind.PYTORCHJOB, workload(0)))
    result = await carry_out(gateway, actions=wanted)
    assert result.result is Result.NAME_TAKEN
    assert "run-p0" in result.message
    assert gateway.names("PyTorchJob") == []


async def test_a_name_that_was_freed_in_between_is_tried_again(gateway):
    gateway.put("Job", job(0))

    def free(method, kind, name):
        if (method, kind) == ("get", "Job"):
            gateway.remove("Job", "run-p0")

    gateway.fault = free
    assert (await carry_out(gateway, actions=(Create(ChildKind.JOB, job(0)),))).result is Result.STALE


async def test_a_refused_child_ends_the_pass_with_the_servers_words(gateway):
    error = RefusedError("exceeded quota", retry_seconds=7)
    gateway.fault = lambda method, kind, name: error if method == "create" else None
    result = await carry_out(gateway, status=STATUS, actions=(Create(ChildKind.JOB, job(0)),), events=(EVENT,))
    assert (result.result, result.retry_seconds) == (Result.REFUSED, 7)
    assert "exceeded quota" in result.message
    assert len(gateway.events) == 1


async def test_a_create_that_was_applied_without_an_answer_is_found_by_the_next_pass(gateway):
    create = Create(ChildKind.JOB, job(0))
    gateway.after_apply = lambda method, kind, name: GatewayError("timed out") if method == "create" else None
    with pytest.raises(GatewayError):
        await carry_out(gateway, actions=(create,))
    assert (await carry_out(gateway, actions=(create,))).result is Result.DONE
    assert gateway.names("Job") == ["run-p0"]


async def test_a_delete_names_the_uid(gateway):
    gateway.put("Job", job(0))
    uid = "uid-of-run-p0"
    assert (await carry_out(gateway, actions=(Delete(ChildKind.JOB, "run-p0", "old"),))).result is Result.STALE
    assert gateway.names("Job") == ["run-p0"]
    for _ in range(2):  # what is gone already is deleted
        assert (await carry_out(gateway, actions=(Delete(ChildKind.JOB, "run-p0", uid),))).result is Result.DONE
    assert gateway.names("Job") == []


async def test_only_the_run_that_was_read_is_deleted(gateway):
    await carry_out(gateway, actions=(DeleteRun(uid="another"),))
    assert gateway.names("SweepRun") == ["run"]
    await carry_out(gateway, actions=(DeleteRun(uid=UID),))
    assert gateway.names("SweepRun") == []


async def test_a_lost_event_changes_nothing(gateway):
    gateway.fault = lambda method, kind, name: GatewayError("away") if method == "emit" else None
    assert (await carry_out(gateway, status=STATUS, events=(EVENT, EVENT))).result is Result.DONE


@pytest.mark.parametrize(
    "error", [RefusedError("exceeded quota"), GatewayError("500"), GatewayError("429", retry_seconds=60)]
)
async def test_a_child_that_nothing_depends_on_hinders_nothing(gateway, error):
    gateway.fault = lambda method, kind, name: error if (method, name) == ("create", "run-s0") else None
    survey, prepare = job(0, role="survey"), job(0)
    optional = Create(ChildKind.JOB, survey, optional=True)
    result = await carry_out(gateway, status=STATUS, actions=(optional, Create(ChildKind.JOB, prepare)))
    assert result.result is Result.DONE
    assert gateway.names("Job") == ["run-p0"]
    assert [event for event in written(gateway) if event[0] == "emit"] == []


async def test_an_optional_child_is_made_where_nothing_hinders_it(gateway):
    result = await carry_out(gateway, actions=(Create(ChildKind.JOB, job(0, role="survey"), optional=True),))
    assert result.result is Result.DONE
    assert gateway.names("Job") == ["run-s0"]


async def test_an_answer_that_takes_too_long_is_not_waited_for(gateway, monkeypatch):
    monkeypatch.setattr(execution, "OPTIONAL_SECONDS", 0.01)

    async def create(*arguments, **options):
        await asyncio.Event().wait()

    monkeypatch.setattr(gateway, "create", create)
    result = await carry_out(gateway, actions=(Create(ChildKind.JOB, job(0, role="survey"), optional=True),))
    assert result.result is Result.DONE
