"""Exit codes: of the training container, of any container, of this command."""

from __future__ import annotations

import signal

from sweeprun_cli.exits import Exit
from sweeprun_protocol.exit_codes import ExitCode

from .entry import Entry

CONTAINER: dict[ExitCode, Entry] = {
    ExitCode.COMPLETED: Entry(
        "The program ended well. That alone does not make a run complete: one that was told to stop may end well too."
    ),
    ExitCode.CONFIGURATION: Entry(
        "The environment that the operator sets is absent or contradicts itself.",
        "Look whether something (a webhook, an entry script) removes SWEEPRUN_ variables.",
    ),
    ExitCode.NO_PYTHON: Entry(
        "No Python 3.9 or newer was found in the image.", "Set spec.entrypoint.pythonPath to one."
    ),
    ExitCode.STALE_EPOCH: Entry("A later claim was on the volume before it started: this attempt was over already."),
    ExitCode.ATTEMPT_REUSED: Entry("Another pod had started in this slot of the attempt: it is made anew as a whole."),
    ExitCode.RESUME_POINT_LOST: Entry(
        "The checkpoint to resume from is not what prepare had checked.", "Look for who writes beside the run."
    ),
    ExitCode.VOLUME_UNUSABLE: Entry(
        "The run directory could not be read or written at the start.", "Look at the volume on that node."
    ),
    ExitCode.FENCED: Entry(
        "A later claim appeared while it trained: it ended itself, so that nothing is written twice."
    ),
    ExitCode.NO_AGREEMENT: Entry(
        "The ranks did not agree on the checkpoint to load: none of them trained.",
        "Look whether all nodes see the same volume, and at the log of the first rank that left.",
    ),
    ExitCode.STALLED: Entry(
        "No progress for spec.limits.stallTimeoutSeconds: it was ended.", "Read its log, or raise the limit."
    ),
}

COMMAND: dict[Exit, Entry] = {
    Exit.OK: Entry("Done; of `watch RUN`: the run is complete."),
    Exit.FAILED: Entry(
        "Bad news: the run failed (`watch`, `local`), `inspect --check` found damage, `tracking sync` did not send all."
    ),
    Exit.USAGE: Entry("A wrong option or argument, or a file that is not there.", "See --help."),
    Exit.TIMED_OUT: Entry("--timeout was over before what was waited for came true."),
    Exit.NOT_FOUND: Entry("There is no such SweepRun.", "`sweeprun get -A` lists all."),
    Exit.NO_CLUSTER: Entry("No kubeconfig, or no answer from the API server.", "The message names the file it tried."),
    Exit.FORBIDDEN: Entry("The API server says that you may not.", "Ask for rights on sweepruns.sweeprun.dev."),
    Exit.REFUSED: Entry("The API server or the operator refused what was asked for.", "The message is its own."),
    Exit.NOT_INSTALLED: Entry("The cluster does not know SweepRuns.", "Install the chart, or choose another context."),
    Exit.UNREADABLE: Entry("The object was written by another version.", "Use the version that the operator has."),
    Exit.BUG: Entry("A bug in SweepRun.", "Please report it with what was printed."),
    Exit.INTERRUPTED: Entry("Ctrl-C."),
}


def by_signal(code: int) -> Entry | None:
    """128 + n: the shell's and the kernel's way to say that signal n ended it."""
    try:
        name = signal.Signals(code - 128).name
    except ValueError:
        return None
    more = {
        "SIGKILL": " Too little memory, or the grace period was over.",
        "SIGTERM": " It was told to stop: an eviction, a drain, a deletion.",
        "SIGSEGV": " A bug in native code, or damaged memory.",
    }.get(name, "")
    return Entry(f"Signal {name} ended the program.{more}")
