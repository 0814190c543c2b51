"""A later claim seen during training ends the process, and everything that it started, without a word to it."""

from support.pod import alive, python, sh, wait_until
from sweeprun_protocol.exit_codes import ExitCode

POLITE = "trap 'echo polite > polite; exit 0' TERM INT HUP; echo ready > ready; while :; do sleep 0.02; done"


def test_a_later_claim_ends_training_at_once_with_a_code_of_its_own(pod, run):
    pod.start(sh(POLITE))
    pod.trace("ready")
    run.claim(2)
    done = pod.end()
    assert done.code == ExitCode.FENCED
    assert "epoch 2 was claimed" in done.ours
    assert not (pod.directory / "polite").exists()
    assert run.end_record().exit_code == ExitCode.FENCED
    assert run.end_record().told_to_stop is False


WORKER = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: print("polite", file=open("polite", "w"), flush=True))
print(os.getpid(), file=open("worker", "w"), flush=True)
while True:
    time.sleep(60)
"""
LAUNCHER = (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-ISc', sys.argv[1]], start_new_session=True).wait()"
)


def test_processes_with_sessions_of_their_own_end_with_it(pod, run):
    # as torchrun's workers and W&B's service have: the latter would close the run politely when its program is gone
    pod.start([*python(LAUNCHER), WORKER])
    number = int(pod.trace("worker"))
    run.claim(2)
    assert pod.end().code == ExitCode.FENCED
    wait_until(lambda: not alive(number), "the worker ends", seconds=1)
    assert not (pod.directory / "polite").exists()


def test_a_fenced_leader_waits_for_nobody(new_pod, two):
    environ = new_pod("master-0", two).environ(SWEEPRUN_GRACE_SECONDS="60")  # a failed leader would wait half of it
    pod = new_pod("master-0", two).start(sh(POLITE), environ=environ)
    pod.trace("ready")
    two.claim(2)
    assert pod.end(seconds=10).code == ExitCode.FENCED


def test_nothing_but_a_claim_ends_training(pod, run):
    (run.path / "claims" / "000002.json.tmp").write_text("{}")
    (run.path / "claims" / "notes").mkdir()
    assert pod.run(sh("sleep 0.4; exit 4")).code == 4  # a few looks long
