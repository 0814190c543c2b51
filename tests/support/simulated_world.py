"""A pure world that plays plans: statuses are written, children appear and go, nothing happens by itself.

Every write is counted. An operator may be made to die after any of them: the rest of its plan is lost, and the next
pass begins with what the world then shows. What must hold at all times is checked with every write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from support.manifests import make_run
from support.observations import (
    CLAIM,
    CLUSTER,
    NOW,
    make_acceptance,
    make_job,
    make_pod,
    make_report,
    make_trainer,
    make_workload,
)
from sweeprun_operator.api.status import Condition, ConditionType, Progress, State, SweepRunStatus
from sweeprun_operator.api.v1alpha1 import SweepRun
from sweeprun_operator.builders.images import HelperImages
from sweeprun_operator.builders.manifests import Manifests
from sweeprun_operator.core.decide import decide
from sweeprun_operator.core.observation import (
    Acceptance,
    Claim,
    HelperJob,
    JobPhase,
    Observation,
    OwnerState,
    PodPhase,
    PodState,
    Refusal,
    Role,
)
from sweeprun_operator.core.observation import Workload as SeenWorkload
from sweeprun_operator.core.plan import Action, Create, Delete, DeleteRun, Event, Plan
from sweeprun_protocol.keys import NUMBER_LABEL, ROLE_LABEL
from sweeprun_protocol.prepare import REQUEST_ENV, PrepareReport, PrepareRequest
from sweeprun_protocol.reasons import Outcome

MOST_PASSES = 40


class DiedError(Exception):
    """The operator is gone in the middle of a plan."""


class World:
    def __init__(self, *, dies_after: int | None = None, **spec: Any) -> None:
        self.run: SweepRun = make_run(**spec)
        self.now: datetime = NOW
        self.server_ahead = timedelta()
        """The API server's clock, of the operator's."""
        self.children = Manifests(HelperImages(image="registry.test/operator:1"))
        self.jobs: dict[str, HelperJob] = {}
        self.workloads: dict[str, SeenWorkload] = {}
        self.pods: dict[str, PodState] = {}
        self.events: list[Event] = []
        self.created: list[str] = []
        """Without surveys, on which nothing depends."""
        self.surveys: list[str] = []
        self.manifests: dict[str, dict[str, Any]] = {}
        self.owners: Mapping[str, OwnerState] = {}
        self.unready_nodes: frozenset[str] = frozenset()
        self.held: set[str] = set()
        """Names of pods with finalizers."""
        self.acceptance: Acceptance = make_acceptance()
        self.refusal: Refusal | None = None
        self.claim: Claim | None = CLAIM
        self.deleted_run = False
        self.writes = 0
        self.wants_again: float | None = None
        self._dies_after = dies_after

    # -- passes --------------------------------------------------------------------------------------------------------

    @property
    def status(self) -> SweepRunStatus:
        return self.run.status

    @property
    def current(self) -> Any:
        assert self.run.status.current is not None
        return self.run.status.current

    def observe(self) -> Observation:
        accepted = self.status.condition(ConditionType.ACCEPTED)
        settled = (
            accepted is not None
            and accepted.observed_generation == self.run.metadata.generation
            and self.status.is_true(ConditionType.ACCEPTED)
        )
        return Observation(
            run=self.run,
            now=self.now,
            cluster_id=CLUSTER,
            jobs=tuple(self.jobs.values()),
            workloads=tuple(self.workloads.values()),
            pods=tuple(self.pods.values()),
            acceptance=None if settled else self.acceptance,
            unready_nodes=self.unready_nodes,
            refusal=self.refusal,
            owners=self.owners,
            claim=self.claim,
        )

    def one_pass(self) -> Plan:
        seen = self.observe()
        plan = self.decide(seen)
        try:
            self._play(plan)
        except DiedError:
            return plan
        self.events += plan.events
        self.wants_again = plan.requeue_seconds
        return plan

    def decide(self, seen: Observation) -> Plan:
        plan = decide(seen, self.children)
        assert decide(seen, self.children) == plan, "the same observation gives the same plan"
        return plan

    def settle(self) -> World:
        """Passes until one changes nothing."""
        for _ in range(MOST_PASSES):
            before = self.writes
            self.one_pass()
            if self.writes == before or self.deleted_run:
                return self
        raise AssertionError(f"still not settled: {self.status}")

    def later(self, seconds: float) -> World:
        self.now += timedelta(seconds=seconds)
        return self.settle()

    def when_wanted(self) -> World:
        """To the moment for which the last pass asked."""
        assert self.wants_again is not None, "nothing more will happen"
        return self.later(self.wants_again)

    def _play(self, plan: Plan) -> None:
        if plan.status is not None:
            written = SweepRunStatus.model_validate(plan.status.to_wire())
            assert written == plan.status, "a status survives the wire"
            self.run = self.run.model_copy(update={"status": written})
            self._wrote()
        for action in plan.actions:
            self._act(action)
            self._wrote()

    def _wrote(self) -> None:
        self.writes += 1
        live = [item.name for item in self.workloads.values()]
        assert len(live) <= 1, f"more than one workload: {live}"
        if self._dies_after is not None and self.writes == self._dies_after:
            raise DiedError

    def _act(self, action: Action) -> None:
        if isinstance(action, Create):
            self._create(action.manifest)
        elif isinstance(action, DeleteRun):
            assert action.uid == self.run.metadata.uid
            self.deleted_run = True
        else:
            self._delete(action)

    def _create(self, manifest: dict[str, Any]) -> None:
        name, labels = manifest["metadata"]["name"], manifest["metadata"]["labels"]
        if name in self.jobs or name in self.workloads:
            return
        number = int(labels[NUMBER_LABEL])
        (self.surveys if labels[ROLE_LABEL] == Role.SURVEY else self.created).append(name)
        self.manifests[name] = manifest
        if manifest["kind"] == "Job":
            assert number == self.current.prepare, "a helper Job carries the status's number"
            role = Role(labels[ROLE_LABEL])
            self.jobs[name] = replace(make_job(number, role=role), name=name, uid=f"uid-{name}", created=self.now)
            return
        assert self.current.epoch >= 1, "no workload without a decided epoch"
        assert self.current.outcome is not None, "no workload without a decided epoch"
        assert self.status.history[-1].attempt == number, "history knows an attempt before it exists"
        assert not self.pods, "no workload beside pods of another attempt"
        created = self.now + self.server_ahead
        found = make_workload(attempt=number, name=name, uid=f"uid-{name}", created=created)
        self.workloads[name] = found

    def _delete(self, action: Delete) -> None:
        """Jobs go at once; a workload goes when its pods do, as with training-operator's own clean-up."""
        found = self.jobs.get(action.name) or self.workloads.get(action.name) or self.pods.get(action.name)
        if found is None or found.uid != action.uid:
            return
        self.jobs.pop(action.name, None)
        if action.force and action.name in self.held:
            self.pods[action.name] = replace(self.pods[action.name], grace_seconds=0)
        elif action.force:
            self.pods.pop(action.name, None)
        if self.workloads.pop(action.name, None) is not None:
            self.pods = {name: replace(pod, deleting=True) for name, pod in self.pods.items()}

    # -- what others do ------------------------------------------------------------------------------------------------

    def edit(self, **spec: Any) -> World:
        """spec as on the wire; a new generation."""
        changed = {**self.run.spec.to_wire(), **spec}
        self.run = SweepRun.from_wire(
            {
                "metadata": {
                    **self.run.metadata.to_wire(),
                    "generation": self.run.metadata.generation + 1,
                },
                "spec": {name: value for name, value in changed.items() if value is not None},
                "status": self.status.to_wire(),
            }
        )
        return self.settle()

    def answer(self, report: PrepareReport, *, role: Role = Role.PREPARE) -> World:
        return self.answer_unseen(report, role=role).settle()

    def answer_unseen(self, report: PrepareReport, *, role: Role = Role.PREPARE) -> World:
        """Without a pass that looks at it."""
        job = next(job for job in self.jobs.values() if job.role is role and job.number == report.prepare)
        self.jobs[job.name] = replace(job, phase=JobPhase.SUCCEEDED, report=report, finished=self.now)
        return self

    def fail_job(self, problem: str = "container sweeprun-prepare ended with 137 (OOMKilled)") -> World:
        newest = max(self.jobs.values(), key=lambda job: job.number)
        self.jobs[newest.name] = replace(newest, phase=JobPhase.FAILED, problem=problem)
        return self.settle()

    def progress(self, step: int) -> World:
        """As the poll of the attempt's pods writes it."""
        seen = Progress(step=step, time=self.now)
        self.run = self.run.model_copy(update={"status": self.status.model_copy(update={"progress": seen})})
        return self.settle()

    def change_job(self, **fields: Any) -> World:
        """The newest one: sweep_init comes after the prepare of its number."""
        newest = max(self.jobs.values(), key=lambda job: (job.number, job.role is Role.INIT))
        self.jobs[newest.name] = replace(newest, **fields)
        return self.settle()

    def refuse(self, message: str | None, *, what: str = "the pod", field: str = "spec.helperPods") -> World:
        """What the API server says of the next thing to be made; None: nothing is in the way any more."""
        self.refusal = Refusal(what=what, message=message, field=field) if message is not None else None
        return self.settle()

    def complain(self, problem: str) -> World:
        """The newest Job goes on, and its pod says what is wrong."""
        return self.change_job(problem=problem)

    def begin(self, *, outcome: Outcome = Outcome.FRESH, **report: Any) -> World:
        """Prepare 0 answers, and the first attempt comes to run in full."""
        self.settle().later(1)
        self.answer(make_report(0, outcome, **report)).later(2)
        return self.start_pods()

    def go_on(self, report: PrepareReport) -> World:
        """The drain's prepare answers, a backoff is waited for, and the attempt comes to run in full."""
        self.later(3).answer(report)
        if self.current.state is State.BACKOFF:
            self.when_wanted()
        return self.later(1).start_pods()

    def interrupt(self) -> World:
        """The worker is evicted, and all pods of the attempt go."""
        return self.evict("worker-0").later(6).pods_go()

    def break_down(self, exit_code: int = 1) -> World:
        """All ranks end by the program's own error, and their pods go."""
        return self.end_pods(exit_code).later(1).pods_go()

    def start_pods(self, *, phase: PodPhase = PodPhase.RUNNING) -> World:
        (workload,) = self.workloads.values()
        for kind, count in self.children.replicas(self.run).items():
            for index in range(count):
                name = f"{workload.name}-{kind}-{index}"
                self.pods[name] = make_pod(
                    f"{kind}-{index}",
                    attempt=workload.attempt,
                    name=name,
                    phase=phase,
                    containers=(make_trainer(started=phase is PodPhase.RUNNING),),
                    created=self.now,
                )
        return self.settle()

    def start_pods_partly(self) -> World:
        """The master runs, the worker waits."""
        self.start_pods(phase=PodPhase.PENDING)
        return self.change_pod("master-0", phase=PodPhase.RUNNING, containers=(make_trainer(),))

    def change_pod(self, slot: str, **fields: Any) -> World:
        pod = self.pod(slot)
        self.pods[pod.name] = replace(pod, **fields)
        return self.settle()

    def change_workload(self, **fields: Any) -> World:
        (workload,) = self.workloads.values()
        self.workloads[workload.name] = replace(workload, **fields)
        return self.settle()

    def evict(self, slot: str = "worker-0", reason: str = "EvictionByEvictionAPI") -> World:
        return self.change_pod(slot, deleting=True, disruption=reason, disruption_time=self.now)

    def end_pods(self, exit_code: int = 0) -> World:
        """All training containers end with this code, at once."""
        phase = PodPhase.SUCCEEDED if exit_code == 0 else PodPhase.FAILED
        self.pods = {
            name: replace(pod, phase=phase, containers=(make_trainer(exit_code, finished=self.now),))
            for name, pod in self.pods.items()
        }
        return self.settle()

    def pods_go(self, *slots: str) -> World:
        """Their objects vanish; all of them unless named."""
        self.pods = {name: pod for name, pod in self.pods.items() if slots and pod.slot not in slots}
        return self.settle()

    def pod(self, slot: str) -> PodState:
        return next(pod for pod in self.pods.values() if pod.slot == slot)

    # -- what tests look at --------------------------------------------------------------------------------------------

    def reasons(self) -> list[str]:
        return [event.reason for event in self.events]

    def condition(self, kind: ConditionType) -> Condition:
        found = self.status.condition(kind)
        assert found is not None, f"there is no condition {kind}"
        return found

    def is_stuck(self) -> str | None:
        """The reason, while the condition Stuck is true."""
        return self.condition(ConditionType.STUCK).reason if self.status.is_true(ConditionType.STUCK) else None

    def failure(self) -> str | None:
        """The reason, while the condition Failed is true."""
        return self.condition(ConditionType.FAILED).reason if self.status.is_true(ConditionType.FAILED) else None

    def request_of(self, number: int, *, role: Role = Role.PREPARE) -> PrepareRequest:
        """What that prepare was asked."""
        letter = str(role)[0]
        pod = self.manifests[f"{self.run.metadata.name}-{letter}{number}"]["spec"]["template"]["spec"]
        (variable,) = [item for item in pod["containers"][0]["env"] if item["name"] == REQUEST_ENV]
        return PrepareRequest.decode(variable["value"].replace("$$", "$"))
