"""Reasons of the conditions of a SweepRun. Those that prepare gives stand in `refusals.BLOCKED`."""

from __future__ import annotations

from sweeprun_operator.api.acceptance import Reason
from sweeprun_operator.api.status import State

from .entry import Entry

ACCEPTANCE: dict[Reason, Entry] = {
    Reason.TOO_LARGE: Entry("The template or the configuration is too large.", "256 KiB and 64 KiB are the limits."),
    Reason.TEMPLATE_INVALID: Entry("spec.template is no PyTorchJob that can be used.", "The message names the field."),
    Reason.REPLICAS_INVALID: Entry("The replicas of the template cannot be used.", "There has to be one Master."),
    Reason.CONTAINER_MISSING: Entry(
        "No container of the template has the name of spec.entrypoint.containerName.",
        "Rename the container to pytorch, or name it in spec.entrypoint.containerName.",
    ),
    Reason.COMMAND_MISSING: Entry(
        "The container has no command: what an image starts by itself cannot be wrapped, as spec.entrypoint.mode asks.",
        "Set command in the template, or mode EnvOnly.",
    ),
    Reason.RESTARTS_RANKS: Entry(
        "The launcher would start ranks anew inside a pod, from the attempt's resume point, without a record of it.",
        "Remove --max-restarts: the operator makes new attempts.",
    ),
    Reason.PROBE_STOPS: Entry(
        "A probe may stop a container that has no entrypoint, and its exit 0 would look like the end of training.",
        "Remove the probe, set command in the template, or use completion.policy: Explicit.",
    ),
    Reason.WANDB_AGENT: Entry(
        "The command is `wandb agent`, which chooses the run ID itself.", "Use the one-trial form as spec.init."
    ),
    Reason.ELASTIC_POLICY: Entry("elasticPolicy has different bounds.", "Set minReplicas and maxReplicas to the same."),
    Reason.INIT_INVALID: Entry("spec.init.template cannot be used.", "It has to have exactly one container."),
    Reason.ENVIRONMENT_TAKEN: Entry(
        "The template sets a variable that SweepRun sets itself.", "Remove it from the template; the message names it."
    ),
    Reason.CLAIM_MISSING: Entry(
        "The PersistentVolumeClaim of spec.storage is not there.", "Create it: the run is looked at again by itself."
    ),
    Reason.ACCESS_MODE: Entry(
        "The claim's access mode does not fit the pods that need it at once.", "ReadWriteMany has no such limit."
    ),
    Reason.MOUNT_CONFLICT: Entry("The template mounts something else at the volume's place.", "Use another mountPath."),
    Reason.ARGUMENTS_LOST: Entry(
        "Warning: the command is a shell line, which takes no appended arguments.",
        "Write $SWEEPRUN_RESUME_ARGS where they belong in the line.",
    ),
    Reason.SECRET_IN_TEMPLATE: Entry(
        "Warning: a secret stands in the template as plain text.", "Use valueFrom.secretKeyRef."
    ),
    Reason.OVERRIDDEN: Entry("Warning: the template sets what the operator sets itself; the operator's value counts."),
}

STATES: dict[State, Entry] = {
    State.PREPARING: Entry("A prepare Job looks at the volume and decides how the run goes on."),
    State.INITIALIZING: Entry("sweep_init runs and makes a new run ID."),
    State.BACKOFF: Entry(
        "What comes next waits a while, longer after each failure.", "`sweeprun retry RUN` does not wait."
    ),
    State.STARTING: Entry("The PyTorchJob is made; not all of its pods run yet."),
    State.RUNNING: Entry("All pods of the attempt run."),
    State.DRAINING: Entry("The attempt has ended; its pods must be gone before anything else may write."),
    State.HELD: Entry("Suspended, and nothing of the attempt is left.", "`sweeprun resume RUN` goes on."),
    State.FINISHED: Entry("The run has ended: the conditions Complete or Failed say how."),
}

CONDITIONS: dict[str, Entry] = {
    "Accepted": Entry("The spec is valid, and the API server would take the workload (dry run)."),
    "TemplateRefused": Entry(
        "The API server refuses the workload in a dry run; the message is its own.", "Change spec.template."
    ),
    "DryRunUnavailable": Entry(
        "No dry run could be made: training-operator's webhook or the API server did not answer.",
        "It is tried again by itself. Look whether training-operator runs.",
    ),
    "SuspendedBySpec": Entry("spec.suspend is true.", "`sweeprun resume RUN` goes on."),
    "Queued": Entry("A queue has not admitted the job yet.", "Look at the queue: `kubectl get workloads`."),
    "GoesOn": Entry("What this condition told of is over."),
    "NameTaken": Entry(
        "An object with the name that a child needs belongs to something else.",
        "Delete it, or give the SweepRun another name.",
    ),
    "QuotaExceeded": Entry(
        "A ResourceQuota of the namespace refuses a job or its pods.",
        "It goes on by itself once there is room; `kubectl describe quota` shows what is used.",
    ),
    "PodSecurity": Entry(
        "The namespace's Pod Security level refuses the pods.",
        "Change spec.template or spec.helperPods, as the message says, or the namespace's level.",
    ),
    "LimitRange": Entry(
        "A LimitRange of the namespace refuses the pods.",
        "Change requests and limits in spec.template or spec.helperPods, or the LimitRange.",
    ),
    "ChildRefused": Entry(
        "The API server, or a webhook of it, refuses a job or its pods.",
        "The message is its own. It is tried again by itself.",
    ),
    "NodeUnreachable": Entry(
        "Pods of the ended attempt are on a node that does not answer: they may still write, so nothing else "
        "may start.",
        "It goes on once the node is back or its Node object is deleted. If the machine is known to be off: "
        "kubectl taint node NODE node.kubernetes.io/out-of-service=nodeshutdown:NoExecute. "
        "spec.unreachable.policy ForceDelete does not wait for such nodes.",
    ),
    "PodHeld": Entry(
        "Pods were deleted by force, and finalizers hold their objects.",
        "Who set the finalizers has to take them away: `kubectl get pod POD -o jsonpath={.metadata.finalizers}`.",
    ),
    "PreparePending": Entry(
        "The pod of prepare has not answered for two minutes and complains.",
        "The message says about what: `kubectl get pods -l sweeprun.dev/name=RUN,sweeprun.dev/role=prepare`.",
    ),
    "PrepareFailing": Entry(
        'Three prepares in a row gave no answer. That is never taken for "no checkpoint".',
        "Look at the events and the log of its pod; it is tried again by itself.",
    ),
    "OwnerNotGone": Entry(
        "The run that spec.runId names is incomplete, and its owner is not proved to be gone.",
        "`sweeprun adopt RUN` shows the owner. Delete the old SweepRun, or wait until it has ended.",
    ),
    "OwnerEnding": Entry(
        "An incomplete run is to be taken over, and pods of the SweepRun before are still there.",
        "It goes on once they are gone: `kubectl get pods -l sweeprun.dev/uid=UID`. On a node that does not answer: "
        "kubectl taint node NODE node.kubernetes.io/out-of-service=nodeshutdown:NoExecute.",
    ),
    "Completed": Entry("The run is complete: every slot's end was proved on the volume."),
    "Stopped": Entry("A request said Stop. The checkpoints are kept.", "`sweeprun retry RUN` goes on."),
    "Retried": Entry("The run had failed, and a request said Retry."),
    "ActiveDeadlineExceeded": Entry(
        "The attempts ran longer together than spec.limits.activeDeadlineSeconds.",
        "Raise it, then `sweeprun retry RUN`.",
    ),
    "MaxDisruptionsExceeded": Entry(
        "More disruptions than spec.limits.maxDisruptions.", "Raise or remove it, then `sweeprun retry RUN`."
    ),
    "MaxFailuresExceeded": Entry(
        "The program failed more often than spec.limits.maxFailures since the last progress.",
        "Repair what `sweeprun why RUN` shows, then `sweeprun retry RUN`.",
    ),
    "MaxNeverStartedExceeded": Entry(
        "More attempts than spec.limits.maxNeverStarted did not start since the last progress.",
        "`sweeprun why RUN` says what they waited for; then `sweeprun retry RUN`.",
    ),
    "MaxAttemptsWithoutProgressExceeded": Entry(
        "More attempts than spec.limits.maxAttemptsWithoutProgress trained and got no new checkpoint.",
        "Save more often (`sweeprun advise RUN`), then `sweeprun retry RUN`.",
    ),
}
