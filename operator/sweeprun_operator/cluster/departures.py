"""Disrupted pods, as the watches last told of them: one that is gone before a pass looks can still say why it went.

Kubernetes marks a pod and removes it within as little as 0.1 s (PodGC), or as long as its program takes to end. This is
memory of one process: after a restart such a pod has vanished without a word.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from sweeprun_operator.api.status import MAX_POD_UIDS
from sweeprun_operator.core.observation import PodState
from sweeprun_protocol.keys import UID_LABEL

from .fields import labels_of, uid_of
from .gateway import Raw
from .observe import attempt_pods

MAX_RUNS = 10_000
"""The run that was heard of longest ago is forgotten first."""


class Departures:
    def __init__(self) -> None:
        self._pods: OrderedDict[str, dict[str, PodState]] = OrderedDict()

    def heard(self, raw: Raw) -> None:
        """A watch told of this pod, alive or for the last time."""
        owner = labels_of(raw).get(UID_LABEL)
        pods = attempt_pods([raw])
        if not isinstance(owner, str) or not pods:
            return
        known = self._pods.get(owner, {})
        if pods[0].disruption is None:
            # Kubernetes takes the mark back where the deletion did not follow
            known.pop(uid_of(raw), None)
            return
        self._pods[owner] = known
        self._pods.move_to_end(owner)
        newest = max([pod.attempt for pod in known.values()], default=0)
        if pods[0].attempt > newest:
            known.clear()
        if len(known) < MAX_POD_UIDS:
            known[uid_of(raw)] = pods[0]
        while len(self._pods) > MAX_RUNS:
            self._pods.popitem(last=False)

    def of(self, owner_uid: str, present: Iterable[PodState]) -> tuple[PodState, ...]:
        """The disrupted pods of a run that are not among those `present`."""
        uids = {pod.uid for pod in present}
        return tuple(pod for uid, pod in self._pods.get(owner_uid, {}).items() if uid not in uids)
