"""What the schema of the CRD cannot see, since the template is opaque to it: judged here, shown as `Accepted=False`.

Pure. Each message says what is wrong, where, and what to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from sweeprun_protocol.reasons import CompletionPolicy

from .commands import restarts_ranks, runs_wandb_agent, shell_line
from .entrypoint import clean_pod_policy, is_wrapped
from .mounts import mount_problems
from .spec import MAX_CONFIG_BYTES, MAX_TEMPLATE_BYTES, SweepRunSpec
from .status import MAX_POD_UIDS
from .template import MASTER, REPLICA_SPECS, WORKER, Container, Replica, mapping, mappings, replicas, texts


class Reason(StrEnum):
    """Reasons of Accepted=False, and of warnings."""

    TOO_LARGE = "TooLarge"
    TEMPLATE_INVALID = "TemplateInvalid"
    REPLICAS_INVALID = "ReplicasInvalid"
    CONTAINER_MISSING = "ContainerMissing"
    COMMAND_MISSING = "CommandMissing"
    PROBE_STOPS = "ProbeStops"
    """A probe may stop a container whose end nobody records."""
    WANDB_AGENT = "WandbAgent"
    ELASTIC_POLICY = "ElasticPolicy"
    INIT_INVALID = "InitInvalid"
    ENVIRONMENT_TAKEN = "EnvironmentTaken"
    CLAIM_MISSING = "ClaimMissing"
    ACCESS_MODE = "AccessMode"
    MOUNT_CONFLICT = "MountConflict"
    ARGUMENTS_LOST = "ArgumentsLost"
    """Warning: a shell line takes no appended arguments."""
    SECRET_IN_TEMPLATE = "SecretInTemplate"  # noqa: S105  (the word, not a secret)
    """Warning."""
    RESTARTS_RANKS = "RestartsRanks"
    """Warning: the launcher starts ranks anew inside a pod."""
    OVERRIDDEN = "Overridden"
    """Warning: the template says something that the operator sets itself."""


@dataclass(frozen=True)
class Problem:
    reason: Reason
    message: str
    transient: bool = False
    """It may go away without an edit: look again later."""


class ClaimFacts(Protocol):
    """The PersistentVolumeClaim of spec.storage, as far as it matters here."""

    @property
    def found(self) -> bool: ...

    @property
    def access_modes(self) -> tuple[str, ...]: ...


OWN_VARIABLES = frozenset({"WANDB_RUN_ID", "WANDB_RESUME"})
SECRET_NAME = re.compile(r"(?:^|_)(?:API)?(?:KEY|TOKEN|SECRET|PASSWORD)(?:_|$)", re.IGNORECASE)
_RESUME_VARIABLES = re.compile(r"SWEEPRUN_RESUME_(?:ARGS|FROM)\b")


def problems(spec: SweepRunSpec, claim: ClaimFacts) -> list[Problem]:
    """Why nothing can be created for this spec; empty where it is acceptable."""
    too_large = list(_sizes(spec))
    if too_large:
        return too_large
    found = [*_metadata(spec), *_replica_set(spec), *_elastic(spec), *_init(spec)]
    for replica in replicas(spec.template.spec):
        found += _replica(replica, spec)
    return [*found, *_claim(spec, claim)]


def warnings(spec: SweepRunSpec, claim: ClaimFacts) -> list[Problem]:
    """What is accepted, but probably not what was meant."""
    found = list(_overridden(spec))
    for replica in replicas(spec.template.spec):
        container = replica.container(spec.entrypoint.container_name)
        if container is not None:
            found += [*_lost_arguments(container, spec), *_literal_secrets(container), *_restarts(container)]
    return [*found, *_one_node(spec, claim)]


def _sizes(spec: SweepRunSpec) -> Iterator[Problem]:
    bounded = [
        ("spec.template", spec.template.to_wire(), MAX_TEMPLATE_BYTES, "keep scripts in the image or a ConfigMap"),
        ("spec.config", spec.config, MAX_CONFIG_BYTES, "keep data on the volume and name it in the configuration"),
        ("spec.init.template", spec.init and spec.init.template, MAX_TEMPLATE_BYTES, "keep scripts in the image"),
    ]
    for path, value, limit, advice in bounded:
        size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
        if size > limit:
            yield Problem(Reason.TOO_LARGE, f"{path} has {size} bytes, at most {limit} are possible: {advice}")


def _metadata(spec: SweepRunSpec) -> Iterator[Problem]:
    other = sorted(set(spec.template.metadata) - {"labels", "annotations"})
    if other:
        yield Problem(
            Reason.TEMPLATE_INVALID,
            f"spec.template.metadata holds {_listed(other)}: only labels and annotations are used, since the operator "
            "names the PyTorchJob of each attempt itself; remove the rest",
        )


def _replica_set(spec: SweepRunSpec) -> Iterator[Problem]:
    found = {replica.kind: replica for replica in replicas(spec.template.spec)}
    if MASTER not in found:
        yield Problem(
            Reason.REPLICAS_INVALID, f"{REPLICA_SPECS} has no {MASTER}: put the first replica there, with replicas: 1"
        )
    others = sorted(set(found) - {MASTER, WORKER})
    if others:
        yield Problem(
            Reason.REPLICAS_INVALID,
            f"{REPLICA_SPECS} holds {_listed(others)}: a PyTorchJob knows {MASTER} and {WORKER} only",
        )
    most = MAX_POD_UIDS - 1  # status keeps the UID of every pod
    for replica in found.values():
        count = replica.count
        whole = isinstance(count, int) and not isinstance(count, bool)
        if replica.kind == MASTER and (not whole or count != 1):
            yield Problem(
                Reason.REPLICAS_INVALID,
                f"{replica.path}.replicas is {_clip(count)}: there is exactly one {MASTER}; the others are {WORKER}s",
            )
        elif replica.kind == WORKER and (not whole or not 1 <= count <= most):
            yield Problem(
                Reason.REPLICAS_INVALID,
                f"{replica.path}.replicas is {_clip(count)}: 1 to {most} are possible; for none leave {WORKER} out",
            )


def _elastic(spec: SweepRunSpec) -> Iterator[Problem]:
    policy = spec.template.spec.get("elasticPolicy")
    if policy is None:
        return
    workers = _pods(spec, WORKER)
    least = mapping(policy).get("minReplicas", workers)
    most = mapping(policy).get("maxReplicas", workers)
    if not least == most == workers:
        yield Problem(
            Reason.ELASTIC_POLICY,
            f"spec.template.spec.elasticPolicy: minReplicas ({_clip(least)}) and maxReplicas ({_clip(most)}) must both "
            f"be {workers}, the number of {WORKER}s: a job that shrinks by itself would go on without its checkpoint "
            "being checked",
        )


def _init(spec: SweepRunSpec) -> Iterator[Problem]:
    if spec.init is None:
        return
    path = "spec.init.template.spec.containers"
    containers = mappings(mapping(spec.init.template.get("spec")).get("containers"))
    if len(containers) != 1:
        yield Problem(
            Reason.INIT_INVALID,
            f"{path} has {len(containers)} containers: exactly one is sweep_init; others can be its initContainers",
        )
    for node in containers:
        yield from _own_variables(Container(f"{path}[{_clip(node.get('name'))}]", node), frozenset())


def _replica(replica: Replica, spec: SweepRunSpec) -> Iterator[Problem]:
    name = spec.entrypoint.container_name
    container = replica.container(name)
    if container is None:
        names = [_clip(found.node.get("name")) for found in replica.containers()]
        yield Problem(
            Reason.CONTAINER_MISSING,
            f"{replica.path}.template.spec.containers has none named {name} (found: {_listed(names) or 'no container'})"
            ": give the training container that name, or name it in spec.entrypoint.containerName; training-operator "
            "itself wants one named pytorch",
        )
        return
    if is_wrapped(spec, container) and not texts(container.node.get("command")):
        yield Problem(
            Reason.COMMAND_MISSING,
            f"{container.path}.command is not set, and spec.entrypoint.mode is Wrap: what the image starts by itself "
            "cannot be wrapped; write the command here (`docker image inspect` shows the image's Entrypoint and Cmd), "
            "or use mode Auto or EnvOnly",
        )
    elif runs_wandb_agent(container.words):
        yield Problem(
            Reason.WANDB_AGENT,
            f"{container.path} runs `wandb agent`, which chooses the W&B run ID itself, so that no run could be "
            "continued: run the training script as command, and draw the trial's parameters in spec.init (or put them "
            "into spec.config); spec.tracking.wandb.sweepId keeps the run in its sweep",
        )
    if not is_wrapped(spec, container):
        yield from _stopping_probes(container, spec)
    yield from _own_variables(container, OWN_VARIABLES)
    for message in mount_problems(replica, container, spec.storage):
        yield Problem(Reason.MOUNT_CONFLICT, message)


def _stopping_probes(container: Container, spec: SweepRunSpec) -> Iterator[Problem]:
    """What a probe stops may end with 0, and the pod looks as if it had ended by itself."""
    found = [name for name in ("livenessProbe", "startupProbe") if container.node.get(name) is not None]
    if found and spec.completion.policy is CompletionPolicy.EXIT_CODE:
        yield Problem(
            Reason.PROBE_STOPS,
            f"{container.path} has {_listed(found)} and no entrypoint (EnvOnly): a program that the probe stops and "
            "that exits 0 would look complete; remove the probe, set command so that the entrypoint records why it "
            "ended, or use completion.policy: Explicit",
        )


def _own_variables(container: Container, names: frozenset[str]) -> Iterator[Problem]:
    taken = sorted({name for name, _ in container.environment() if name.startswith("SWEEPRUN_") or name in names})
    if taken:
        yield Problem(
            Reason.ENVIRONMENT_TAKEN,
            f"{container.path}.env sets {_listed(taken)}: the operator sets these for each attempt; remove them (the "
            "W&B run ID goes into spec.tracking.wandb.runId)",
        )


def _claim(spec: SweepRunSpec, claim: ClaimFacts) -> Iterator[Problem]:
    name = spec.storage.persistent_volume_claim.claim_name
    path = "spec.storage.persistentVolumeClaim.claimName"
    if not claim.found:
        yield Problem(
            Reason.CLAIM_MISSING,
            f"PersistentVolumeClaim {name} ({path}) is not in this namespace: create it, and the run goes on by "
            "itself; `kubectl get pvc` lists those that are there",
            transient=True,
        )
        return
    modes = set(claim.access_modes)
    if modes and modes <= {"ReadOnlyMany"}:
        yield Problem(
            Reason.ACCESS_MODE,
            f"PersistentVolumeClaim {name} ({path}) is ReadOnlyMany: checkpoints are written; use ReadWriteMany",
        )
    elif _pods(spec) > 1 and modes and modes <= {"ReadWriteOncePod", "ReadOnlyMany"}:
        yield Problem(
            Reason.ACCESS_MODE,
            f"PersistentVolumeClaim {name} ({path}) is ReadWriteOncePod, and {_pods(spec)} pods need it at once: use "
            f"ReadWriteMany, or a single {MASTER}",
        )


def _one_node(spec: SweepRunSpec, claim: ClaimFacts) -> Iterator[Problem]:
    modes = claim.access_modes if claim.found else ()
    if _pods(spec) > 1 and "ReadWriteOnce" in modes and "ReadWriteMany" not in modes:
        yield Problem(
            Reason.ACCESS_MODE,
            f"PersistentVolumeClaim {spec.storage.persistent_volume_claim.claim_name} is ReadWriteOnce: its "
            f"{_pods(spec)} pods start only where they all fit on one node; ReadWriteMany has no such limit",
        )


def _lost_arguments(container: Container, spec: SweepRunSpec) -> Iterator[Problem]:
    if spec.resume.args and not container.words:
        yield Problem(
            Reason.ARGUMENTS_LOST,
            f"{container.path} sets neither command nor args: with spec.resume.args appended, the image's own "
            "arguments (CMD) would be lost, so they are not; write args here, or read $SWEEPRUN_RESUME_FROM in the "
            "program",
        )
    line = shell_line(container.words)
    if spec.resume.args and line is not None and not _RESUME_VARIABLES.search(line):
        yield Problem(
            Reason.ARGUMENTS_LOST,
            f"{container.path} runs a shell line, which cannot take the appended spec.resume.args: write "
            "$SWEEPRUN_RESUME_ARGS where they belong in the line; it is empty when nothing is resumed",
        )


def _literal_secrets(container: Container) -> Iterator[Problem]:
    names = sorted({name for name, value in container.environment() if value and SECRET_NAME.search(name)})
    if names:
        yield Problem(
            Reason.SECRET_IN_TEMPLATE,
            f"{container.path}.env has {_listed(names)} as plain text, which everybody who may read SweepRuns sees: "
            "use valueFrom.secretKeyRef",
        )


def _restarts(container: Container) -> Iterator[Problem]:
    if restarts_ranks(container.words):
        yield Problem(
            Reason.RESTARTS_RANKS,
            f"{container.path} sets --max-restarts: ranks that the launcher starts anew inside the pod begin at the "
            "attempt's resume point, and steps are repeated without a record of it; remove it, since the operator "
            "makes new attempts (spec.limits.maxFailures)",
        )


_RUN_POLICY = {
    "suspend": "use spec.suspend",
    "backoffLimit": "use spec.limits.maxFailures",
    "ttlSecondsAfterFinished": "use spec.ttlSecondsAfterFinished",
    "activeDeadlineSeconds": "use spec.limits.activeDeadlineSeconds",
}


def _overridden(spec: SweepRunSpec) -> Iterator[Problem]:
    policy = mapping(spec.template.spec.get("runPolicy"))
    for field, advice in _RUN_POLICY.items():
        if policy.get(field) is not None and policy.get(field) is not False:
            yield Problem(Reason.OVERRIDDEN, f"spec.template.spec.runPolicy.{field} is not used: {advice}")
    own = clean_pod_policy(spec)
    if policy.get("cleanPodPolicy") not in (None, own):
        yield Problem(
            Reason.OVERRIDDEN,
            f"spec.template.spec.runPolicy.cleanPodPolicy is not used: it is {own} here, so that the evidence stays",
        )
    for replica in replicas(spec.template.spec):
        if replica.node.get("restartPolicy") not in (None, "Never"):
            yield Problem(
                Reason.OVERRIDDEN,
                f"{replica.path}.restartPolicy is not used: it is Never here, since the operator makes new attempts",
            )


def _pods(spec: SweepRunSpec, *kinds: str) -> int:
    """Of these kinds of replicas, or of all."""
    found = [replica for replica in replicas(spec.template.spec) if not kinds or replica.kind in kinds]
    return sum(replica.count for replica in found if isinstance(replica.count, int))


def _listed(names: list[str]) -> str:
    """Bounded: conditions hold 1024 characters."""
    shown = ", ".join(_clip(name) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _clip(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 63 else f"{text[:60]}..."
