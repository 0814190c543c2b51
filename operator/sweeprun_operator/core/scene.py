"""The pods and the workload of one attempt, as the classification of its end sees them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sweeprun_operator.api.entrypoint import CHECK
from sweeprun_operator.api.status import Doubt, Interruption, State

from .observation import ContainerState, Observation, PodPhase, PodState, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    now: datetime
    pods: tuple[PodState, ...]
    workload: Workload | None
    expected: int
    """Pods of the attempt."""
    trainer: str
    """Name of the training container: its end is the end of its pod, whatever containers beside it do."""
    known_uids: frozenset[str] = frozenset()
    ended_uids: frozenset[str] = frozenset()
    """Seen to have ended well."""
    workload_uid: str | None = None
    all_ran: bool = False
    """All pods of the attempt were seen running."""
    departed: tuple[PodState, ...] = ()
    """Disrupted and gone."""
    unready_nodes: frozenset[str] = frozenset()
    doubt: Doubt | None = None
    disruption: Interruption | None = None

    @property
    def struck(self) -> tuple[PodState, ...]:
        """Pods with DisruptionTarget, gone or not: the condition alone ends nothing."""
        return (*(pod for pod in self.pods if pod.disruption is not None), *self.departed)

    @property
    def missing(self) -> frozenset[str]:
        """UIDs of pods that are gone and were not seen to have ended well."""
        return self.known_uids - self.ended_uids - {pod.uid for pod in self.pods}

    def ended_well(self, pod: PodState) -> bool:
        if pod.unwrapped:
            return pod.uid in self.ended_uids or (self._ended_with_0(pod) and not _is_told_to_go(pod))
        return self._ended_with_0(pod)

    def _ended_with_0(self, pod: PodState) -> bool:
        if pod.phase is PodPhase.SUCCEEDED:
            return True
        trainer = self.trainer_of(pod)
        return pod.phase is not PodPhase.FAILED and trainer is not None and trainer.exit_code == 0

    def failed(self, pod: PodState) -> bool:
        trainer = self.trainer_of(pod)
        return pod.phase is PodPhase.FAILED or bool(trainer is not None and trainer.exit_code)

    def trainer_of(self, pod: PodState) -> ContainerState | None:
        return next((item for item in pod.containers if item.name == self.trainer and not item.init), None)

    def check_of(self, pod: PodState) -> ContainerState | None:
        """The start check, where no entrypoint makes it."""
        return next((item for item in pod.containers if item.name == CHECK and item.init), None)

    def is_known(self, pod: PodState) -> bool:
        """Its UID stands in the status."""
        return pod.uid in self.known_uids

    def is_terminal(self, pod: PodState) -> bool:
        return pod.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    def is_over(self, pod: PodState) -> bool:
        return self.is_terminal(pod) or self.failed(pod)

    def began(self, pod: PodState) -> bool:
        """A container of it ran; where the kubelet has lost their states, what was seen before tells."""
        return self.all_ran or any(item.started for item in pod.containers)

    def first_failure(self, pod: PodState) -> ContainerState | None:
        """The container that failed first; where times are missing, the training container, else the first one."""
        failed = [item for item in pod.containers if item.exit_code]
        return min(failed, key=lambda item: (_moment(item) or self.now, item.name != self.trainer), default=None)

    def ended_at(self, pod: PodState) -> datetime | None:
        """When the pod failed, by the cluster's word."""
        failed = self.first_failure(pod)
        return _moment(failed) if failed is not None else None

    def end_of(self, pod: PodState) -> datetime:
        """For the order of failures: a pod that never began failed when it was made, others now if nobody knows."""
        began = pod.created if not self.began(pod) else None
        return self.ended_at(pod) or began or self.now


def _is_told_to_go(pod: PodState) -> bool:
    """Whoever makes the kubelet stop a container writes one of these before the signal is sent: where neither stands
    beside an exit code, the program ended by itself."""
    return pod.deleting or pod.disruption is not None


def _moment(container: ContainerState) -> datetime | None:
    """The kubelet writes 1970 where it does not know."""
    finished = container.finished
    return finished if finished is not None and finished.year > 1970 else None


def scene_of(seen: Observation) -> Scene:
    """The current attempt's; the run has a current attempt."""
    current = seen.run.status.current
    assert current is not None, "the run has begun"
    return Scene(
        now=seen.now,
        pods=tuple(pod for pod in seen.pods if pod.attempt == current.attempt),
        workload=next((item for item in seen.workloads if item.owned and item.attempt == current.attempt), None),
        expected=sum(current.replicas.values()),
        trainer=seen.run.spec.entrypoint.container_name,
        known_uids=frozenset(current.pod_uids),
        ended_uids=frozenset(current.ended_pod_uids),
        workload_uid=current.workload_uid,
        all_ran=current.running_time is not None or current.state is State.RUNNING,
        departed=tuple(pod for pod in seen.departed if pod.attempt == current.attempt),
        unready_nodes=seen.unready_nodes,
        doubt=current.doubt,
        disruption=current.disruption,
    )
