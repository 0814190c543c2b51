"""Stories of prepare, and a volume whose process dies before its k-th changing operation."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sweeprun_protocol.prepare import PrepareReport, PrepareRequest
from sweeprun_protocol.reasons import OnNoValidCheckpoint, Outcome, StartReason

from .volume_checkpoints import contents, flip, rewrite, saved
from .volume_sweep import CONFIG, CONFIG_NAME, OTHER, Sweep, adopting, make_request, with_init

_CHANGES_NAMES = frozenset({"link", "unlink", "rename", "mkdir", "rmdir"})


class DiedError(BaseException):
    """No handler may survive it: it is the process that ends."""


class Mortality:
    """Observer of a Volume: dies before the `at`-th operation that leaves names behind which no earlier death leaves.

    A death between two writes into a temporary file leaves what the death before the file's link leaves, and so does
    one between the removal of a temporary file and the next link.
    """

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.operations: list[tuple[str, str]] = []
        self._last = ""

    def __call__(self, operation: str, path: str) -> None:
        if operation not in _CHANGES_NAMES or "probe" in path:
            return
        last, self._last = self._last, operation
        if operation == "link" and last == "unlink":
            return
        if len(self.operations) == self.at:
            raise DiedError(f"{operation} {path}")
        self.operations.append((operation, path))


def damage(checkpoint):
    path = checkpoint / "model.pt"
    rewrite(path, flip(path.read_bytes(), 1000))


@dataclass(frozen=True)
class Story:
    """`play` leaves the volume as it is when prepare is asked `request`."""

    play: Callable[[Sweep], PrepareRequest]
    outcome: Outcome
    reason: StartReason | None = None
    staging: tuple[str, ...] = ()
    """Pods of sweep_init, one for each try; empty: a plain prepare."""
    later: frozenset[tuple[Outcome, StartReason | None]] = frozenset()
    """What the next number may answer besides: its predecessor had decided, and its attempt never ran."""
    copies: bool = False
    """Each epoch that is decided may have a copy of the resume point."""

    def ask(self, sweep, request, *, attempt=0, before=None):
        if self.staging:
            return sweep.finish_init(request, self.staging[attempt], before=before)
        return sweep.ask(request, before=before)


def resume_with_one_refused(sweep):
    sweep.prepare()
    sweep.save(100)
    damage(sweep.save(200))
    return sweep.next_request()


def resume_foreign_with_one_refused(sweep):
    sweep.prepare()
    sweep.put("step-100.pt", saved({"step": 100}))
    whole = saved({"step": 200})
    sweep.put("step-200.pt", flip(whole, len(whole) // 2))
    return sweep.next_request()


def resume_from_a_copy(sweep):
    """The attempt was deleted by force: its processes may still write to the old place."""
    sweep.prepare()
    sweep.put("step-100.pt", saved({"step": 100}))
    sweep.put("step-200.pt", saved({"step": 200}))
    return sweep.next_request(drain_forced=True)


def every_slot_ended_well(sweep):
    sweep.prepare()
    sweep.save(900)
    sweep.starts()
    sweep.ends()
    (sweep.directory() / f"{sweep.run_id}.incomplete").touch()
    return sweep.next_request()


def nothing_committed(sweep):
    sweep.prepare()
    return sweep.next_request()


def nothing_there(sweep):
    return make_request()


def refused_and_a_new_run(sweep):
    sweep.prepare(configuration=with_init().configuration)
    damage(sweep.save(100))
    (sweep.directory() / CONFIG_NAME).exists()
    return sweep.next_request(fresh_number=1)


def refused_and_a_new_run_without_its_configuration_in_the_request(sweep):
    """The old run's file is the only copy: made by sweep_init once, which is gone from the specification."""
    sweep.init_leaves("pod-a", files=[(CONFIG_NAME, CONFIG.encode())])
    sweep.last = sweep.finish_init(with_init(), "pod-a")
    damage(sweep.save(100))
    return sweep.next_request(fresh_number=1, configuration=with_init().configuration)


def refused_and_a_new_run_after_init(sweep):
    sweep.init_leaves("pod-a", files=[(CONFIG_NAME, CONFIG.encode())])
    sweep.last = sweep.finish_init(with_init(), "pod-a")
    damage(sweep.save(100))
    sweep.init_leaves(
        "pod-b", key="uid-0-1", files=[(CONFIG_NAME, b"lr: '0.02'\n"), ("run.json", b'{"runId":"second"}')]
    )
    sweep.init_leaves(
        "pod-c", key="uid-0-1", files=[(CONFIG_NAME, b"lr: '0.03'\n"), ("run.json", b'{"runId":"third"}')]
    )
    changes = with_init(fresh_number=1, init_key="uid-0-1")
    return sweep.next_request(fresh_number=1, init_key=changes.init_key, configuration=changes.configuration, prepare=1)


def refused_and_a_restart(sweep):
    sweep.prepare()
    damage(sweep.save(100))
    sweep.put("step-50.pt", b"junk")
    return sweep.next_request(on_no_valid_checkpoint=OnNoValidCheckpoint.RESTART_RUN)


def no_resume(sweep):
    sweep.prepare()
    sweep.save(100)
    sweep.put("step-50.pt", saved({"step": 50}))
    return sweep.next_request(resume=False)


def left_behind_by_another(sweep):
    sweep.prepare(owner=OTHER)
    sweep.save(100)
    damage(sweep.save(200))
    run_id, sweep.last = sweep.run_id, None
    return make_request(adoption=adopting(take=run_id, take_epoch=1))


def left_behind_by_a_script(sweep):
    """Its configuration is not that of the specification, and stays."""
    directory = sweep.directory("scripted")
    (directory / "checkpoints").mkdir(parents=True)
    (directory / ".incomplete").touch()
    (directory / CONFIG_NAME).write_text("lr: '0.5'\n")
    (directory / "checkpoints" / "step-100.pt").write_bytes(saved({"step": 100}))
    return make_request(adoption=adopting(idle=0, take="scripted"))


def init_has_run(sweep):
    sweep.init_leaves(
        "pod-a", files=[(CONFIG_NAME, b"lr: '0.02'\n"), ("run.json", b'{"runId":"one","wandbRunId":"w1"}')]
    )
    sweep.init_leaves(
        "pod-b", files=[(CONFIG_NAME, b"lr: '0.03'\n"), ("run.json", b'{"runId":"two","wandbRunId":"w2"}')]
    )
    return with_init()


def init_has_run_and_names_nothing(sweep):
    sweep.init_leaves("pod-a", files=[(CONFIG_NAME, b"lr: '0.02'\n")])
    sweep.init_leaves("pod-b", files=[(CONFIG_NAME, b"lr: '0.03'\n")])
    return with_init()


RESTARTED = frozenset({(Outcome.RESTART, StartReason.NOTHING_COMMITTED)})
RESUMED = frozenset({(Outcome.RESUME, StartReason.NEWEST_CHECKPOINT)})

STORIES = {
    "resume with one refused": Story(resume_with_one_refused, Outcome.RESUME, StartReason.WALKED_BACK, later=RESUMED),
    "resume from a foreign file with one refused": Story(
        resume_foreign_with_one_refused, Outcome.RESUME, StartReason.WALKED_BACK, later=RESUMED
    ),
    "resume from a copy": Story(
        resume_from_a_copy, Outcome.RESUME, StartReason.NEWEST_CHECKPOINT, later=RESUMED, copies=True
    ),
    "completed": Story(every_slot_ended_well, Outcome.COMPLETED),
    "restart": Story(nothing_committed, Outcome.RESTART, StartReason.NOTHING_COMMITTED),
    "first start": Story(nothing_there, Outcome.FRESH, StartReason.FIRST_START, later=RESTARTED),
    "a new run": Story(refused_and_a_new_run, Outcome.FRESH, StartReason.ALL_REFUSED, later=RESTARTED),
    "a new run with the configuration of the old one": Story(
        refused_and_a_new_run_without_its_configuration_in_the_request,
        Outcome.FRESH,
        StartReason.ALL_REFUSED,
        later=RESTARTED,
    ),
    "a new run after sweep_init": Story(
        refused_and_a_new_run_after_init,
        Outcome.FRESH,
        StartReason.ALL_REFUSED,
        staging=("pod-b", "pod-c"),
        later=RESTARTED,
    ),
    "restart where all were refused": Story(
        refused_and_a_restart, Outcome.RESTART, StartReason.ALL_REFUSED, later=RESTARTED
    ),
    "restart by policy": Story(
        no_resume,
        Outcome.RESTART,
        StartReason.RESUME_NEVER,
        later=RESTARTED,
    ),
    "adoption from another owner": Story(
        left_behind_by_another, Outcome.RESUME, StartReason.WALKED_BACK, later=RESUMED
    ),
    "adoption from a script": Story(left_behind_by_a_script, Outcome.RESUME, StartReason.NEWEST_CHECKPOINT),
    "sweep_init": Story(
        init_has_run, Outcome.FRESH, StartReason.FIRST_START, staging=("pod-a", "pod-b"), later=RESTARTED
    ),
    "sweep_init that names nothing": Story(
        init_has_run_and_names_nothing,
        Outcome.FRESH,
        StartReason.FIRST_START,
        staging=("pod-a", "pod-b"),
        later=RESTARTED,
    ),
}


def copy_of(sweep, name):
    """File times included: they tell a file that was written again."""
    root = sweep.root.parent / name
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(sweep.root, root)
    return Sweep(root)


def records(sweep):
    """What was published once: claims, decisions, results, run records, results of sweep_init, configurations."""
    patterns = ("**/claims/0*.json", "**/decision.json", "**/result.json", "**/run.json", ".sweeprun-inits/*.json")
    paths = {
        path
        for pattern in (*patterns, f"sweep/**/{CONFIG_NAME}", "**/superseded-by.json")
        for path in sweep.root.glob(pattern)
    }
    return {str(path.relative_to(sweep.root)): path.read_bytes() for path in paths}


def answer(report: PrepareReport) -> dict[str, Any]:
    """All that must not depend on a death."""
    checkpoint = report.checkpoint
    return {
        "outcome": report.outcome,
        "reason": report.reason,
        "run": report.run_id,
        "epoch": report.epoch,
        "base": (checkpoint.step, checkpoint.epoch, checkpoint.path, checkpoint.digest) if checkpoint else None,
        "previous": report.previous_run_id,
        "config": (report.config_file, report.config_digest),
        "wandb": report.wandb_run_id,
        "adopted": report.adopted,
        "step": report.step,
        "ends": report.ends,
        "refused": [(item.path, item.reason) for item in report.refused],
    }


def contents_of(story: Story, sweep: Sweep) -> dict[str, Any]:
    """What training wrote, wherever it lies."""
    found = contents(sweep.root)
    return {name: sorted(set(data)) for name, data in found.items()} if story.copies else found


def _place(base: Any) -> Any:
    """A copy lies in the epoch that was decided, which may be the one after."""
    return base and (*base[:2], re.sub(r"^epochs/\d+/", "epochs/E/", base[2]), base[3])


def check(story: Story, due: PrepareReport, sweep: Sweep, request: PrepareRequest, where: str) -> None:
    other_pod = bool(story.staging) and not (sweep.root / f".sweeprun-inits/{request.init_key}.json").exists()
    report = story.ask(sweep, request, attempt=int(bool(story.staging)))
    expected, found = answer(due), answer(report)
    if other_pod:  # nothing of the first pod of sweep_init was published: the second one's draw counts
        for name in ("run", "config", "wandb"):
            assert (found.pop(name) is None) == (expected.pop(name) is None), where
    if request.prepare == due.prepare:
        assert found == expected, where
        assert answer(story.ask(sweep, request)) == answer(report), where
        return
    assert found["epoch"] >= expected["epoch"], where
    assert (found["outcome"], found["reason"]) in {(due.outcome, due.reason), *story.later}, where
    assert (found.get("wandb") or "").partition("-e")[0] == (expected.get("wandb") or "").partition("-e")[0], where
    assert ("-e" in (found.get("wandb") or "")) == ("-e" in (expected.get("wandb") or "")), where
    assert _place(found["base"]) == _place(expected["base"]), where
    for name in ("run", "previous", "config", "adopted", "step"):
        assert found.get(name) == expected.get(name), where
