"""torchrun and `accelerate launch` under the entrypoint: a worker told to stop saves, and is not killed too soon."""

import os
import signal
import sys

import pytest

from sweeprun_protocol.exit_codes import ExitCode

WORKER = """
import os, signal, sys, time

def save(*_):
    time.sleep(float(os.environ["SAVES_FOR"]))
    print("saved", file=open("saved", "w"), flush=True)
    os._exit(0)

signal.signal(signal.SIGTERM, save)
with open("started", "a") as file:
    print(os.environ.get("RANK", "alone"), file=file, flush=True)
while not os.environ.get("FAILS"):
    time.sleep(0.05)
sys.exit(3)
"""

LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"],
    "accelerate launch": ["-m", "accelerate.commands.launch", "--cpu", "--num_processes=1"],
}

pytestmark = pytest.mark.timeout(180)
SECONDS = 90.0
"""torch alone takes many of them to load on a busy machine."""


@pytest.fixture(params=LAUNCHERS)
def launcher(request, pod):
    (pod.directory / "worker.py").write_text(WORKER)
    return [sys.executable, *LAUNCHERS[request.param], "worker.py"]


def environ(pod, **more):
    kept = {name: os.environ[name] for name in ("HOME", "LD_LIBRARY_PATH") if name in os.environ}
    return pod.environ(USE_LIBUV="0", OMP_NUM_THREADS="1", PET_MAX_RESTARTS="0", **kept, **more)


def test_a_worker_that_is_told_to_stop_saves_and_the_attempt_was_told_to_stop(pod, run, launcher):
    pod.start(launcher, environ=environ(pod, SWEEPRUN_GRACE_SECONDS="30", SAVES_FOR="1"))
    pod.trace("started", seconds=SECONDS)
    pod.send(signal.SIGTERM)
    done = pod.end(seconds=40)
    assert done.code not in (0, ExitCode.VOLUME_UNUSABLE), done.stderr  # launchers do not pass on a worker's 0
    assert pod.trace("saved") == "saved"
    assert run.end_record().told_to_stop is True


@pytest.mark.parametrize("launcher", ["torchrun"], indirect=True)
def test_torchrun_ends_its_workers_within_the_pods_grace_and_not_after_30_seconds(pod, run, launcher):
    pod.start(launcher, environ=environ(pod, SWEEPRUN_GRACE_SECONDS="7", SAVES_FOR="60"))
    pod.trace("started", seconds=SECONDS)
    pod.send(signal.SIGTERM)
    assert pod.end(seconds=25).code != 0
    assert not (pod.directory / "saved").exists()
    assert run.end_record().told_to_stop is True


@pytest.mark.parametrize("launcher", ["torchrun"], indirect=True)
def test_torchrun_starts_no_rank_anew_behind_the_records_of_the_attempt(pod, run, launcher):
    done = pod.start(launcher, environ=environ(pod, FAILS="1", SAVES_FOR="0")).end(seconds=SECONDS)
    assert done.code == 1  # whatever a worker's code was
    assert pod.trace("started") == "0"
    assert run.end_record().exit_code == 1
