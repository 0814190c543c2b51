"""Reconcile, workers and resync: what becomes of a pass, and that nothing is left out."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import pytest

from support.memory_gateway import MemoryGateway
from support.objects import condition, current, job, run, trainer_pod, workload
from sweeprun_operator.api.status import State, SweepRunStatus
from sweeprun_operator.cluster.gateway import GatewayError, NotFoundError, RefusedError
from sweeprun_operator.cluster.versions import version
from sweeprun_operator.controller.queue import Key, Queue
from sweeprun_operator.controller.reconcile import Next, Reconciler
from sweeprun_operator.controller.rest import LONGEST_SECONDS, Rest
from sweeprun_operator.controller.resync import Resync
from sweeprun_operator.controller.workers import Workers
from sweeprun_operator.core.observation import Refusal
from sweeprun_operator.core.plan import ChildKind, Create, Plan

KEY = Key("default", "run")


class Decisions:
    def __init__(self, *plans):
        self.plans = list(plans)
        self.seen = []

    def decide(self, observation):
        self.seen.append(observation)
        return self.plans.pop(0) if len(self.plans) > 1 else self.plans[0]

    def proof(self, run):
        return {"metadata": {"name": "run-a0"}}


@pytest.fixture
def gateway():
    made = MemoryGateway()
    made.put("SweepRun", run(status={"conditions": [condition("Accepted")]}))
    return made


def reconciler(gateway, *plans):
    decisions = Decisions(*plans)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = Reconciler(gateway, decisions, clock=lambda: now, told=lambda before, after: None)
    return made, decisions


async def test_a_pass_carries_out_what_was_decided(gateway):
    made, decisions = reconciler(gateway, Plan(status=SweepRunStatus(phase="Preparing"), requeue_seconds=5))
    assert await made.reconcile(KEY) == Next(after_seconds=5)
    assert decisions.seen[0].cluster_id == "cluster-1"
    assert gateway.read("SweepRun", "run")["status"]["phase"] == "Preparing"


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        (State.PREPARING, True),
        (State.INITIALIZING, True),
        (State.BACKOFF, True),
        (State.DRAINING, True),
        (State.STARTING, False),
        (State.RUNNING, False),
        (State.HELD, False),
        (State.FINISHED, False),
    ],
)
async def test_a_pass_says_whether_the_run_waits_for_its_next_attempt(gateway, state, waits):
    status = SweepRunStatus.model_validate({"current": current(state)})
    for plan in (Plan(status=status), Plan()):
        made, _ = reconciler(gateway, plan)
        assert (await made.reconcile(KEY)).between_attempts is waits


async def test_the_cluster_is_asked_for_its_name_once(gateway):
    made, _ = reconciler(gateway, Plan())
    await made.reconcile(KEY)
    await made.reconcile(KEY)
    assert gateway.calls.count(("get", "Namespace", "kube-system")) == 1


async def test_a_run_that_is_gone_needs_nothing(gateway):
    gateway.remove("SweepRun", "run")
    made, decisions = reconciler(gateway, Plan())
    assert await made.reconcile(KEY) == Next(gone=True)
    assert decisions.seen == []


async def test_a_stale_read_is_tried_again(gateway):
    made, decisions = reconciler(gateway, Plan(status=SweepRunStatus(phase="X")))
    decide = decisions.decide

    def meanwhile(observation):
        gateway.put("SweepRun", gateway.read("SweepRun", "run"))
        return decide(observation)

    decisions.decide = meanwhile
    assert (await made.reconcile(KEY)).failed
    decisions.decide = decide
    assert not (await made.reconcile(KEY)).failed


async def test_a_refused_child_is_told_to_the_next_decision(gateway):
    made, decisions = reconciler(gateway, Plan(actions=(Create(ChildKind.JOB, job(0)),)))
    error = RefusedError("exceeded quota", retry_seconds=9)
    gateway.fault = lambda method, kind, name: error if method == "create" else None
    for _ in range(2):
        assert await made.reconcile(KEY) == Next(failed=True, after_seconds=9)
    gateway.fault = lambda method, kind, name: None
    assert await made.reconcile(KEY) == Next()
    await made.reconcile(KEY)
    refused = Refusal(what="Job run-p0", message="exceeded quota", field="spec.helperPods")
    assert [seen.refusal for seen in decisions.seen] == [None, refused, refused, None]


async def test_a_run_that_cannot_be_read_is_complained_of_and_kept_in_line(gateway):
    del gateway.read("SweepRun", "run")["spec"]["storage"]
    made, decisions = reconciler(gateway, Plan())
    assert (await made.reconcile(KEY)).failed
    assert gateway.events[0][1] == "Unreadable"
    assert decisions.seen == []


def workers(queue, reconcile, seen, **more):
    return Workers(queue, reconcile, watcher=lambda seconds, error: seen.append(error), **more)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  several things are looked at
            await asyncio.sleep(0.001)


async def test_workers_share_the_keys_and_none_is_worked_on_twice_at_once():
    queue = Queue(jitter=lambda: 0.0)
    at_work, most, done = set(), [0], []

    async def reconcile(key):
        assert key not in at_work
        at_work.add(key)
        most[0] = max(most[0], len(at_work))
        queue.add(key) if len(done) < 20 else None
        await asyncio.sleep(0.001)
        at_work.discard(key)
        done.append(key)
        return Next()

    keys = [Key("n", str(number)) for number in range(6)]
    for key in keys:
        queue.add(key)
    running = asyncio.create_task(workers(queue, reconcile, [], count=3).run())
    await until(lambda: len(done) > 20 and not at_work and not len(queue))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert set(done) == set(keys)
    assert most[0] == 3


async def test_a_namespace_whose_passes_all_hang_keeps_no_other_waiting():
    """As behind a webhook of its own that does not answer."""
    queue, done = Queue(jitter=lambda: 0.0, most_per_namespace=2), []

    async def reconcile(key):
        if key.namespace == "hangs":
            await asyncio.Event().wait()
        done.append(key)
        return Next()

    for number in range(9):
        queue.add(Key("hangs", str(number)))
    running = asyncio.create_task(workers(queue, reconcile, [], count=3).run())
    for number in range(3):
        queue.add(Key("works", str(number)))
    await until(lambda: len(done) == 3)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_of_runs_that_are_evicted_at_once_the_first_has_its_attempt_before_the_last_is_looked_at():
    queue, passes, looked_at, recovered = Queue(jitter=lambda: 0.0), Counter(), [], []

    async def reconcile(key):
        await asyncio.sleep(0)
        passes[key] += 1
        if passes[key] == 1:
            looked_at.append(key)
        if passes[key] == 3:
            recovered.append((key, len(looked_at)))
            return Next()
        return Next(after_seconds=0, between_attempts=True)

    for number in range(60):
        queue.add(Key("n", str(number)))
    running = asyncio.create_task(workers(queue, reconcile, [], count=2).run())
    await until(lambda: len(recovered) == 60)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert recovered[0][1] < 10
    assert max(begun - place for place, (_, begun) in enumerate(recovered)) < 10


@pytest.mark.parametrize("turns", range(4))
async def test_a_worker_that_is_cancelled_as_a_part_of_its_pass_fails_does_not_go_on(turns):
    """As when the API server hangs up and the Lease is lost with it: one turn later, asyncio.gather forgets."""
    queue, failing = Queue(jitter=lambda: 0.0), asyncio.Event()
    begun = asyncio.Event()

    async def fails():
        await failing.wait()
        raise GatewayError("hung up")

    async def reconcile(key):
        begun.set()
        await asyncio.gather(fails(), asyncio.Event().wait())

    queue.add(KEY)
    running = asyncio.create_task(workers(queue, reconcile, [], count=1).run())
    await begun.wait()
    failing.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running], timeout=1)
    assert running.done()


@pytest.mark.parametrize("failure", [GatewayError("away"), ValueError("a bug")])
async def test_a_failed_pass_is_repeated_and_ends_no_worker(failure):
    queue = Queue(jitter=lambda: 0.0)
    outcomes = [failure, Next()]
    seen = []

    async def reconcile(key):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    queue.add(KEY)
    running = asyncio.create_task(workers(queue, reconcile, seen, count=1).run())
    await until(lambda: len(seen) == 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert seen == [type(failure).__name__, ""]


async def test_a_pass_that_wants_to_come_again_does():
    queue = Queue(jitter=lambda: 0.0)
    worker = workers(queue, lambda key: answer(Next(after_seconds=0.01)), [], count=1)
    await worker.one_pass(KEY)
    assert await asyncio.wait_for(queue.take(), 5) == KEY


async def answer(value):
    return value


def resync(gateway, queue, *, namespaces=None, done=None, rest=None):
    return Resync(
        gateway,
        queue,
        namespaces=namespaces,
        every_seconds=1,
        jitter=lambda: 0.0,
        rest=rest or Rest(monotonic=lambda: 0.0, wake=lambda key: None),
        succeeded=lambda: done.append(1) if done is not None else None,
    )


async def drain(queue):
    taken = []
    while len(queue):
        key = await queue.take()
        queue.done(key)
        taken.append(str(key))
    return taken


async def test_resync_brings_all_runs_of_all_pages(gateway):
    for number in range(450):
        gateway.put("SweepRun", {"metadata": {"name": f"r{number:03}"}})
    queue, done = Queue(jitter=lambda: 0.0), []
    await resync(gateway, queue, done=done).once()
    assert len(await drain(queue)) == 451
    assert done == [1]


async def test_resync_keeps_to_its_namespaces(gateway):
    gateway.put("SweepRun", {"metadata": {"name": "x"}}, namespace="other")
    gateway.put("SweepRun", {"metadata": {"name": "y"}}, namespace="third")
    queue = Queue(jitter=lambda: 0.0)
    await resync(gateway, queue, namespaces=("default", "third")).once()
    assert await drain(queue) == ["default/run", "third/y"]


async def test_resync_brings_a_run_that_vanished_unseen_once(gateway):
    queue = Queue(jitter=lambda: 0.0)
    lister = resync(gateway, queue)
    await lister.once()
    await drain(queue)
    gateway.remove("SweepRun", "run")
    await lister.once()
    assert await drain(queue) == ["default/run"]
    await lister.once()
    assert await drain(queue) == []


async def test_a_list_that_failed_is_no_success(gateway):
    done = []
    gateway.fault = lambda method, kind, name: GatewayError("away")
    with pytest.raises(GatewayError):
        await resync(gateway, Queue(jitter=lambda: 0.0), done=done).once()
    assert done == []


async def test_a_namespace_that_may_not_be_read_any_more_hides_no_other(gateway):
    gateway.put("SweepRun", {"metadata": {"name": "y"}}, namespace="third")
    gateway.fault = lambda method, kind, name: RefusedError("forbidden") if name == "first" else None
    queue, done = Queue(jitter=lambda: 0.0), []
    with pytest.raises(RefusedError):
        await resync(gateway, queue, namespaces=("first", "third"), done=done).once()
    assert await drain(queue) == ["third/y"]
    assert done == [], "it is no complete list"


class Moving:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Moving()


@pytest.fixture
def rest(clock):
    return Rest(monotonic=clock, wake=lambda key: None)


def children(gateway):
    gateway.put("Job", job(0))
    gateway.put("PyTorchJob", workload(0))
    gateway.put("Pod", trainer_pod(0))


async def passed(gateway, rest, *, phase=None, unchanged=False):
    """A pass; with `phase` one that writes a status, with `unchanged` one whose plan has none."""
    seen = []

    class Now(Decisions):
        def decide(self, observation):
            seen.append(observation)
            status = observation.run.status
            if unchanged:
                return Plan()
            return Plan(status=status if phase is None else status.model_copy(update={"phase": phase}))

    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = Reconciler(gateway, Now(), clock=lambda: now, told=lambda before, after: None, rest=rest)
    await made.reconcile(KEY)
    return seen


async def listed(gateway, rest):
    queue = Queue(jitter=lambda: 0.0)
    await resync(gateway, queue, rest=rest).once()
    return await drain(queue)


async def test_a_run_at_rest_needs_no_pass(gateway, rest):
    children(gateway)
    assert await listed(gateway, rest) == ["default/run"], "no pass has looked at it yet"
    await passed(gateway, rest)
    assert await listed(gateway, rest) == []


async def test_a_plan_without_a_status_leaves_the_run_at_rest(gateway, rest):
    await passed(gateway, rest, unchanged=True)
    assert await listed(gateway, rest) == []


async def test_what_a_watch_has_lost_is_found(gateway, rest):
    changes = {
        "the run was changed": lambda: gateway.put("SweepRun", gateway.read("SweepRun", "run")),
        "a job was changed": lambda: gateway.put("Job", gateway.read("Job", "run-p0")),
        "a workload came": lambda: gateway.put("PyTorchJob", workload(1)),
        "a pod was changed": lambda: gateway.put("Pod", gateway.read("Pod", "run-a0-worker-0")),
        "a pod is gone": lambda: gateway.remove("Pod", "run-a0-worker-0"),
        "a workload is gone": lambda: gateway.remove("PyTorchJob", "run-a0"),
    }
    children(gateway)
    for what, change in changes.items():
        await passed(gateway, rest)
        assert await listed(gateway, rest) == [], what
        change()
        assert await listed(gateway, rest) == ["default/run"], what


async def test_a_pass_that_wrote_something_leaves_no_rest(gateway, rest):
    await passed(gateway, rest)
    await passed(gateway, rest, phase="Preparing")
    assert await listed(gateway, rest) == ["default/run"]


async def test_a_run_that_rests_for_long_is_looked_at_again(gateway, rest, clock):
    await passed(gateway, rest)
    clock.now += LONGEST_SECONDS
    assert await listed(gateway, rest) == ["default/run"]


async def test_a_watch_that_tells_what_the_last_pass_read_is_known(gateway, rest):
    children(gateway)
    await passed(gateway, rest)
    read = [gateway.read("SweepRun", "run"), gateway.read("Pod", "run-a0-worker-0")]
    assert all(rest.has_read(KEY, version(raw)) for raw in read)
    assert not rest.has_read(KEY, version(gateway.put("Pod", gateway.read("Pod", "run-a0-worker-0"))))
    assert not rest.has_read(Key("default", "other"), version(read[0]))


async def test_while_a_pass_is_at_work_everything_rings(gateway, rest):
    await passed(gateway, rest)
    rest.disturbed(KEY)
    assert not rest.has_read(KEY, version(gateway.read("SweepRun", "run")))


async def test_a_cluster_without_pytorchjobs_is_listed(gateway, rest):
    gateway.fault = lambda method, kind, name: NotFoundError("no such kind") if kind == "PyTorchJob" else None
    assert await listed(gateway, rest) == ["default/run"]
