"""Local mode whole: real prepare, real entrypoint, real processes, and an interruption of every kind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from support.objects import run as sweep_run
from sweeprun_cli.local.faults import Damage, Fault, Means
from sweeprun_cli.local.manifest import load
from sweeprun_cli.local.run import End, LocalRun, Options, RootInUseError
from sweeprun_operator.api.status import Cause, ConditionType
from sweeprun_protocol.reasons import Outcome, RefusalReason, StartReason

SCRIPT = Path(__file__).with_name("plain_training.py")
SWEEPRUN = Path(sys.executable).with_name("sweeprun")
STEPS = 40
SECONDS = 60.0

pytestmark = pytest.mark.timeout(120)


def manifest(directory, *arguments, master=True, replicas=1, **spec):
    container = {
        "name": "pytorch",
        "image": "trainer",
        "command": ["python", str(SCRIPT)],
        "args": ["--steps", str(STEPS), *arguments],
    }
    replica = {"template": {"spec": {"terminationGracePeriodSeconds": 5, "containers": [container]}}}
    specs = {"Master": {**replica, "replicas": 1}, "Worker": {**replica, "replicas": replicas}}
    raw = sweep_run("plain")
    del raw["metadata"]["uid"]
    given = {
        "config": {"lr": "0.1"},
        "resume": {"args": ["--resume-from", "$(SWEEPRUN_RESUME_FROM)"]},
        "limits": {"backoff": {"initialSeconds": 1}},
        "template": {"spec": {"pytorchReplicaSpecs": specs}},
        **spec,
    }
    raw["spec"].update({name: value for name, value in given.items() if value is not None})
    path = directory / "run.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def local_run(path, directory, *, faults=(), damage=None, seconds=SECONDS):
    options = Options(
        root=directory / "volume",
        logs=directory / f"logs-{time.monotonic_ns()}",
        faults=tuple(faults),
        damage=damage,
        timeout_seconds=seconds,
    )
    return LocalRun(load(path), options, told=lambda note: print(note.text))


async def ended(path, directory, **more):
    one = local_run(path, directory, **more)
    return await one.run(), one.picture


async def reached(one, step):
    deadline = time.monotonic() + SECONDS
    while one.picture.furthest.get(0, 0) < step:
        assert time.monotonic() < deadline, f"step {step} is not reached within {SECONDS} s"
        await asyncio.sleep(0.05)


def evicted(step):
    return Fault(Means.EVICT, step, None)


def final_state(picture):
    return (picture.run_directory / "checkpoints" / f"step-{STEPS}.pt").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    end, picture = asyncio.run(ended(manifest(directory, "--pause", "0"), directory))
    assert end is End.COMPLETE
    return picture


def test_an_undisturbed_run_takes_one_attempt_and_leaves_no_marker(undisturbed):
    status = undisturbed.status
    assert (status.counts.attempts, status.counts.resumes, status.counts.disruptions) == (1, 0, 0)
    assert [one.cause for one in status.history] == [Cause.COMPLETED]
    assert not (undisturbed.run_directory / ".incomplete").exists()
    assert (undisturbed.run_directory / "result.json").exists()
    assert [report.outcome for _, report in sorted(undisturbed.reports.items())] == [Outcome.FRESH, Outcome.COMPLETED]


async def test_an_evicted_run_goes_on_and_ends_in_the_same_state(tmp_path, undisturbed):
    end, picture = await ended(manifest(tmp_path), tmp_path, faults=[evicted(12)])
    assert end is End.COMPLETE
    first, second = picture.status.history
    assert first.cause is Cause.EVICTION_API
    assert (second.outcome, second.reason) == (Outcome.RESUME, StartReason.NEWEST_CHECKPOINT)
    assert second.from_step is not None
    assert second.from_step >= 10
    counts = picture.status.counts
    assert (counts.disruptions, counts.failures, counts.resumes, counts.fresh_starts) == (1, 0, 1, 0)
    assert final_state(picture) == final_state(undisturbed)


async def test_without_an_entrypoint_a_run_completes_by_what_its_pods_showed(tmp_path, undisturbed):
    end, picture = await ended(manifest(tmp_path, "--pause", "0", entrypoint={"mode": "EnvOnly"}), tmp_path)
    assert end is End.COMPLETE
    assert [one.cause for one in picture.status.history] == [Cause.COMPLETED]
    assert picture.status.result.step == STEPS  # of the newest checkpoint: no record tells
    (epoch,) = (picture.run_directory / "epochs").glob("1")
    assert sorted(path.name for path in epoch.glob("*-*.json") if not path.name.startswith("foreign")) == [
        "start-master-0.json",
        "start-worker-0.json",
    ]
    assert final_state(picture) == final_state(undisturbed)


async def test_a_killed_run_goes_on_and_counts_as_failed(tmp_path, undisturbed):
    end, picture = await ended(manifest(tmp_path), tmp_path, faults=[Fault(Means.KILL, 12, None)])
    assert end is End.COMPLETE
    assert picture.status.history[0].cause is Cause.APPLICATION
    assert "137" in picture.status.history[0].evidence
    counts = picture.status.counts
    assert (counts.disruptions, counts.failures, counts.resumes) == (0, 1, 1)
    assert final_state(picture) == final_state(undisturbed)


async def test_a_corrupt_checkpoint_is_refused_and_the_one_before_it_is_used(tmp_path, undisturbed):
    end, picture = await ended(manifest(tmp_path), tmp_path, faults=[evicted(17)], damage=Damage.NEWEST)
    assert end is End.COMPLETE
    second = picture.status.history[1]
    assert second.reason is StartReason.WALKED_BACK
    (refused,) = second.refused
    assert refused.reason is RefusalReason.CRC_MISMATCH
    assert "archive/data.pkl" in (refused.entry or "")
    newest = int(Path(refused.path).stem.removeprefix("step-"))
    assert second.from_step == newest - 5
    assert final_state(picture) == final_state(undisturbed)


async def test_a_run_evicted_before_its_first_checkpoint_starts_over_as_the_same_run(tmp_path):
    path = manifest(tmp_path, "--pause", "0.4")
    text = path.read_text().replace(f"'{STEPS}'", "'6'")
    path.write_text(text)
    end, picture = await ended(path, tmp_path, faults=[Fault(Means.EVICT, None, 0.6)])
    assert end is End.COMPLETE
    second = picture.status.history[1]
    assert (second.outcome, second.reason) == (Outcome.RESTART, StartReason.NOTHING_COMMITTED)
    assert picture.status.counts.fresh_starts == 0
    assert [one.name for one in picture.run_directory.parent.iterdir()] == [picture.status.run_id]


async def test_a_run_that_crashes_by_itself_spends_its_failures(tmp_path):
    path = manifest(tmp_path, "--crash-at", "7", limits={"maxFailures": 1, "backoff": {"initialSeconds": 1}})
    end, picture = await ended(path, tmp_path)
    assert end is End.FAILED
    failed = picture.status.condition(ConditionType.FAILED)
    assert failed.reason == "MaxFailuresExceeded"
    assert picture.status.counts.disruptions == 0
    assert picture.status.counts.failures == 2
    assert "loss is nan at step 7" in picture.status.history[0].evidence
    assert (picture.run_directory / ".incomplete").exists()


async def test_a_command_that_was_stopped_goes_on_when_it_is_given_again(tmp_path, undisturbed):
    path = manifest(tmp_path, "--pause", "0.1")
    one = local_run(path, tmp_path)
    running = asyncio.create_task(one.run())
    await reached(one, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    end, picture = await ended(path, tmp_path)
    assert end is End.COMPLETE
    assert picture.status.run_id == one.picture.status.run_id
    assert picture.status.history[0].outcome is Outcome.RESUME
    assert final_state(picture) == final_state(undisturbed)


async def test_two_commands_never_work_on_one_directory(tmp_path):
    path = manifest(tmp_path, "--pause", "0.2")
    first = asyncio.create_task(local_run(path, tmp_path).run())
    await asyncio.sleep(0)
    with pytest.raises(RootInUseError, match="another local run"):
        await local_run(path, tmp_path).run()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_sweep_init_runs_once_and_its_configuration_is_kept(tmp_path):
    line = "echo called >> /data/calls; echo 'lr: 0.3' > $SWEEPRUN_INIT_DIR/train_config_overrides.yaml"
    container = {"name": "init", "image": "trainer", "command": ["/bin/sh", "-c", line]}
    path = manifest(tmp_path, config=None, init={"template": {"spec": {"containers": [container]}}})
    end, picture = await ended(path, tmp_path, faults=[evicted(12)])
    assert end is End.COMPLETE
    assert picture.status.counts.resumes == 1
    assert (tmp_path / "volume" / "calls").read_text() == "called\n"
    assert (picture.run_directory / "train_config_overrides.yaml").read_text() == "lr: 0.3\n"


async def test_a_template_that_cannot_be_used_is_refused_before_anything_runs(tmp_path):
    path = manifest(tmp_path, entrypoint={"containerName": "trainer"})
    end, picture = await ended(path, tmp_path)
    assert end is End.REFUSED
    assert "trainer" in picture.status.condition(ConditionType.ACCEPTED).message
    assert not list((tmp_path / "volume").glob("sweep"))


def command(*arguments):
    return subprocess.run(
        [SWEEPRUN, "local", *map(str, arguments)], capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_a_wrong_manifest_is_told_with_its_field_and_a_code_of_its_own(tmp_path):
    path = manifest(tmp_path, limits={"maxFailures": 0})
    done = command("run", path, "--root", tmp_path / "volume")
    assert done.returncode == 2
    assert f"{path}: spec.limits.maxFailures:" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_tells_the_story_and_how_it_ended(tmp_path):
    path = manifest(tmp_path)
    done = command("run", path, "--root", tmp_path / "volume", "--evict-after", 12, "--corrupt", "newest")
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("a pod is evicted at step 12", "EvictionAPI", "CrcMismatch", "plain is complete at step 40"):
        assert said in done.stdout


def test_a_command_that_is_told_to_stop_leaves_no_process(tmp_path):
    path = manifest(tmp_path, "--pause", "1")
    process = subprocess.Popen(
        [SWEEPRUN, "local", "run", path, "--root", tmp_path / "volume"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for line in process.stdout:
            if "Running:" in line:
                break
        assert _of(tmp_path), "the training processes are found while they run"
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "every process of the run is gone" in said
    assert not _of(tmp_path)


def _of(directory):
    """Processes that were told of this volume."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"SWEEPRUN_RUN_DIR={directory}".encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]
