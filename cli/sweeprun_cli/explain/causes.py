"""Why attempts end, and why they begin where they do."""

from __future__ import annotations

from sweeprun_operator.api.status import Cause, Kind
from sweeprun_protocol.reasons import Outcome, StartReason

from .entry import Entry

CAUSES: dict[Cause, Entry] = {
    Cause.COMPLETED: Entry("Every rank ended well, and prepare found on the volume that the run is complete."),
    Cause.EVICTION_API: Entry(
        "A pod was evicted through the Eviction API: its node was drained, or a descheduler moved it.",
        "Nothing: the run goes on by itself. A PodDisruptionBudget would delay drains.",
    ),
    Cause.PREEMPTION: Entry(
        "The scheduler removed a pod to make room for one with a higher priority.",
        "Nothing: the run goes on once there is room. A higher priorityClassName in the template makes it rarer.",
    ),
    Cause.TAINT: Entry(
        "A taint with effect NoExecute removed a pod: its node is not ready, unreachable, or is being taken out.",
        "Nothing for the run; look at the node if it happens often.",
    ),
    Cause.POD_GC: Entry(
        "The node of a pod is gone, or did not answer while its peers failed: spot instances end like this.",
        "Nothing: the run goes on elsewhere. The evidence names the node.",
    ),
    Cause.KUBELET: Entry(
        "The kubelet ended a pod: the node ran short of memory or disk, shut down, or was restarted.",
        "Where the node ran short: set requests that say what the program really needs.",
    ),
    Cause.DISRUPTION_OTHER: Entry(
        "Kubernetes marked a pod as disrupted, with a reason that this version does not know.",
        "Nothing: it counts as a disruption. The evidence has the reason.",
    ),
    Cause.POD_LOST: Entry(
        "A pod of the attempt vanished while it ran, and nothing says why: deleted by hand, or with its node.",
        "Nothing: it counts as a disruption. Look for who deletes pods if it happens often.",
    ),
    Cause.POD_REPLACED: Entry(
        "A slot of the attempt got another pod: training-operator refilled it after its first one vanished. The new "
        "pod does not know what its peers have done, so the whole attempt starts again.",
    ),
    Cause.OOM_KILLED: Entry(
        "A container needed more memory than its limit and was killed by the kernel.",
        "Raise resources.limits.memory of the container named in the evidence, or use less. Repeating does not help.",
    ),
    Cause.STORAGE_LIMIT: Entry(
        "A pod wrote more than its own ephemeral-storage or emptyDir limit allows and was evicted for that.",
        "Write to the volume instead of the container, or raise the limit.",
    ),
    Cause.DEADLINE: Entry(
        "A time limit of the workload or of spec.limits.activeDeadlineSeconds was used up.",
        "Raise the limit if the run is to go on, then `sweeprun retry RUN`.",
    ),
    Cause.APPLICATION: Entry(
        "The training program ended with an error of its own; no sign of a lost node or pod explains it.",
        "Read the log of the pod in the evidence: `kubectl logs POD`. It is tried again spec.limits.maxFailures times "
        "without progress, then the run fails.",
    ),
    Cause.STALLED: Entry(
        "Training hung: for spec.limits.stallTimeoutSeconds no step was reported and nothing changed in the checkpoint "
        "directory. The entrypoint ended the command with SIGTERM, after the pod's grace with SIGKILL.",
        "Read the end of the log of the pod in the evidence: a collective that waits for a rank, or a data loader, is "
        "the usual reason. Where training was only slow (compiling, evaluating, saving seldom), raise the limit. It "
        "counts as a failure.",
    ),
    Cause.NEVER_STARTED: Entry(
        "Not all pods of the attempt ran: not scheduled in time, refused by a node, an image that cannot be pulled, or "
        "a start check that failed.",
        "The evidence says which pod waits for what; `kubectl describe pod` has more. It has a budget of its own "
        "(spec.limits.maxNeverStarted).",
    ),
    Cause.QUEUE_SUSPENDED: Entry(
        "A queue, such as Kueue, suspended the job after it had started: its quota went to something else.",
        "Nothing: the next attempt queues. No budget is used.",
    ),
    Cause.SUSPENDED: Entry("spec.suspend was set.", "`sweeprun resume RUN` goes on."),
    Cause.STOPPED: Entry("A request said Stop.", "`sweeprun retry RUN` goes on from the newest valid checkpoint."),
    Cause.RETRIED: Entry("A request said Retry, or the template's replicas changed: the attempt was made anew."),
    Cause.WORKLOAD_LOST: Entry(
        "The PyTorchJob was deleted by somebody else.",
        "Nothing: another attempt is made. To end a run, use `sweeprun stop RUN` or delete the SweepRun.",
    ),
    Cause.FENCED: Entry(
        "The attempt found a later claim of its run on the volume and ended itself: another prepare has taken over.",
        "Look whether a second SweepRun or a second cluster uses the same run: `sweeprun adopt RUN` lists them.",
    ),
}

KINDS: dict[Kind, Entry] = {
    Kind.COMPLETION: Entry("The attempt ended because the run is complete."),
    Kind.DISRUPTION: Entry(
        "The cluster's doing. It uses up no budget but spec.limits.maxDisruptions, which is absent unless set."
    ),
    Kind.FAILURE: Entry("The program's doing. After spec.limits.maxFailures without progress the run fails."),
    Kind.NEVER_STARTED: Entry("It did not get to train. After spec.limits.maxNeverStarted in a row the run fails."),
    Kind.NEUTRAL: Entry("Asked for by people or queues: it uses up no budget."),
}

START_REASONS: dict[StartReason, Entry] = {
    StartReason.FIRST_START: Entry("Nothing of this run existed: it begins."),
    StartReason.NEWEST_CHECKPOINT: Entry("The newest checkpoint is whole: the run goes on from it."),
    StartReason.WALKED_BACK: Entry(
        "Newer checkpoints were refused: the run goes on from the newest one that is whole.",
        "`sweeprun history RUN` lists what was refused and why; damaged ones lie in quarantine/ of the run directory.",
    ),
    StartReason.REQUESTED_STEP: Entry("A Retry named the step: the newest checkpoint at or below it is used."),
    StartReason.NOTHING_COMMITTED: Entry(
        "It was interrupted before its first checkpoint: same run, same configuration, from step 0.",
        "Save earlier or more often (`sweeprun advise RUN`), and into $SWEEPRUN_CHECKPOINT_DIR.",
    ),
    StartReason.RESUME_NEVER: Entry("spec.resume.policy says that it starts at step 0."),
    StartReason.ALL_REFUSED: Entry(
        "Checkpoints existed and every one was refused; spec.resume.onNoValidCheckpoint chose what follows.",
        "Look at the refused ones in `sweeprun history RUN` before their evidence is cleaned up.",
    ),
}

OUTCOMES: dict[Outcome, Entry] = {
    Outcome.RESUME: Entry("Prepare decided: go on from a verified checkpoint, with the same run ID."),
    Outcome.RESTART: Entry("Prepare decided: the same run and configuration, from step 0."),
    Outcome.FRESH: Entry("Prepare decided: a new run ID, from step 0."),
    Outcome.COMPLETED: Entry("Prepare found that the run is complete."),
    Outcome.BLOCKED: Entry("Prepare can decide nothing: the reason stands in the condition Stuck or Failed."),
    Outcome.SUPERSEDED: Entry("A later prepare of the same run has answered: this answer is not used."),
    Outcome.INIT_REQUIRED: Entry("A new run ID is needed: sweep_init (spec.init) runs and makes it."),
    Outcome.CANDIDATES: Entry(
        "Incomplete runs lie on the volume that could be taken over: the operator looks whether their owners are gone.",
        "`sweeprun adopt RUN` shows what can be taken over, and why not.",
    ),
}
