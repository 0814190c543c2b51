"""How far training is: said by the library's datagrams, shown by the names of checkpoints, told on the pod's port."""

import json
import socket
import time

import pytest

from support.pod import python, sh, wait_until
from support.ports import free_port
from sweeprun_protocol.layout import step_name

SEND = """
import os, socket, sys, time
target = "\\0" + os.environ["SWEEPRUN_PROGRESS_SOCKET"]
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for message in sys.argv[1:]:
    sender.sendto(message.encode("latin-1"), target)
open("sent", "w").write("sent\\n")
while not os.path.exists("go"):
    time.sleep(0.02)
"""


@pytest.fixture
def pod(pod):
    pod.port = free_port()
    return pod


def sending(*messages):
    return [*python(SEND), *(message if isinstance(message, str) else json.dumps(message) for message in messages)]


def go(pod):
    (pod.directory / "go").touch()
    return pod.end()


def test_steps_that_the_library_reports_are_told_and_recorded(pod, run):
    pod.start(sending({"step": 3}, {"step": 7, "committed": 5}, {"step": 6}))
    told = wait_until(lambda: (now := pod.progress()).get("step") == 7 and now, "step 7 is told")
    assert told["committedStep"] == 5
    assert told["firstStepSeconds"] > 0
    assert {name: told[name] for name in ("runId", "epoch", "attempt", "slot", "completed")} == {
        "runId": "digits.7",
        "epoch": 1,
        "attempt": 0,
        "slot": "master-0",
        "completed": False,
    }
    assert go(pod).code == 0
    end = run.end_record()
    assert (end.last_step, end.completed) == (7, False)
    assert end.first_step_seconds == told["firstStepSeconds"]


def test_what_the_library_says_last_counts(pod, run):
    assert pod.run([*sending({"step": 9}, {"completed": True})], environ=at_once(pod)).code == 0
    end = run.end_record()
    assert (end.last_step, end.completed) == (9, True)


def at_once(pod):
    (pod.directory / "go").touch()
    return pod.environ(SWEEPRUN_PORT="off", SWEEPRUN_SAMPLE_SECONDS="60", SWEEPRUN_FENCE_SECONDS="60")


HOSTILE = [
    "",
    "{",
    "[]",
    "\xff\xfe",
    '{"step": -1}',
    '{"step": "9"}',
    '{"step": 1e400}',
    '{"committed": true}',
    "[" * 4000,
]


def test_messages_that_are_none_are_told_once_and_change_nothing(pod, run):
    pod.start(sending(*HOSTILE, "x" * 8000, '{"step": 4', {"step": 2}))
    wait_until(lambda: pod.progress().get("step") == 2, "the message after them is taken")
    done = go(pod)
    assert done.code == 0
    assert done.ours.count("not understood") == 1
    assert "Traceback" not in done.stderr
    assert run.end_record().last_step == 2


def test_a_sender_that_never_ends_does_not_keep_the_pod(pod, run):
    flood = "import os, socket\ntarget = '\\0' + os.environ['SWEEPRUN_PROGRESS_SOCKET']\n"
    flood += "sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\nopen('flooding', 'w').write('yes\\n')\n"
    flood += "while True:\n    sender.sendto(b'{\"step\":1}', target)\n"
    start = sh('"$0" "$@" & until [ -e flooding ]; do sleep 0.02; done; exit 7')
    assert pod.run([*start, *python(flood)]).code == 7
    assert run.end_record().last_step == 1


def test_new_checkpoints_show_how_far_an_unmodified_script_is(pod, run):
    run.save(3)
    pod.start(sh("echo ready > ready; until [ -e go ]; do sleep 0.02; done"))
    pod.trace("ready")
    assert pod.progress().get("committedStep") is None  # step 3 was there before
    run.save(8)
    wait_until(lambda: pod.progress().get("committedStep") == 8, "step 8 is seen")
    (run.checkpoints / ".staging-11-e1-x").mkdir()
    (run.checkpoints / step_name(99, 7)).mkdir()  # of another epoch
    run.commit(10)
    wait_until(lambda: pod.progress().get("committedStep") == 10, "step 10 is seen")
    assert go(pod).code == 0
    assert run.end_record().last_step == 10


def test_a_checkpoint_committed_in_the_last_moment_is_recorded(pod, run):
    run.checkpoints.mkdir()
    environ = pod.environ(SWEEPRUN_PORT="off", SWEEPRUN_SAMPLE_SECONDS="60", SWEEPRUN_FENCE_SECONDS="60")
    assert pod.run(["touch", str(run.checkpoints / "step-12.pt")], environ=environ).code == 0
    assert run.end_record().last_step == 12


def test_files_of_before_are_not_this_attempts_though_they_could_not_be_seen_at_its_start(pod, run):
    run.save(50)
    away = run.checkpoints.rename(run.path / "away")
    run.checkpoints.write_text("a file in the place of a directory")
    pod.start(sh("echo ready > ready; until [ -e go ]; do sleep 0.02; done"))
    pod.trace("ready")
    run.checkpoints.unlink()
    away.rename(run.checkpoints)
    time.sleep(0.3)  # a few looks; nothing tells that one has seen nothing new
    run.save(2)
    wait_until(lambda: pod.progress().get("committedStep"), "a step is seen")
    assert pod.progress()["committedStep"] == 2
    assert go(pod).code == 0


def test_progress_begins_at_the_resume_point(pod, run):
    run.commit(5)
    run.prepare()
    pod.start(sending({"step": 5, "committed": 5}))
    told = wait_until(lambda: (now := pod.progress()).get("committedStep") == 5 and now, "the message is taken")
    assert told["step"] == 5
    assert "firstStepSeconds" not in told  # no step after it yet
    assert go(pod).code == 0
    assert run.end_record().last_step == 5


def test_metrics_are_in_the_format_that_prometheus_reads(pod):
    from prometheus_client.parser import text_string_to_metric_families

    pod.start(sending({"tracked": False}, {"step": 7, "committed": 5}))
    assert wait_until(lambda: (now := pod.progress()).get("step") == 7 and now, "step 7 is told")["tracked"] is False
    kind, body = pod.get("/metrics")
    assert kind.startswith("text/plain")
    samples = {s.name: s for family in text_string_to_metric_families(body.decode()) for s in family.samples}
    values = {name: sample.value for name, sample in samples.items() if not name.endswith("seconds")}
    assert values == {
        "sweeprun_trainer_info": 1,
        "sweeprun_trainer_epoch": 1,
        "sweeprun_trainer_step": 7,
        "sweeprun_trainer_committed_step": 5,
        "sweeprun_trainer_tracked": 0,
    }
    assert samples["sweeprun_trainer_info"].labels == {
        "run_id": "digits.7",
        "sweep": "digits",
        "slot": "master-0",
        "attempt": "0",
    }
    go(pod)


def test_a_client_that_sends_half_a_request_holds_the_port_no_longer_than_a_request_may_take(pod):
    pod.start(sending({"step": 1}))
    pod.progress()
    with socket.create_connection(("127.0.0.1", pod.port)) as client:
        client.sendall(b"GET /prog")
        began = time.monotonic()
        while time.monotonic() - began < 10:
            try:
                client.sendall(b"r")
            except OSError:
                break  # hung up on
            time.sleep(0.2)
        assert time.monotonic() - began < 6
        assert pod.progress()["runId"] == "digits.7"
    go(pod)


@pytest.mark.parametrize("request_line", [b"GET /other HTTP/1.0", b"POST /progress HTTP/1.0", b"nonsense"])
def test_other_requests_are_refused(pod, request_line):
    pod.start(sending({"step": 1}))
    pod.progress()
    with socket.create_connection(("127.0.0.1", pod.port)) as client:
        client.sendall(request_line + b"\r\n\r\n")
        answer = client.makefile("rb").read()
    assert b'"runId"' not in answer
    assert pod.progress()["runId"] == "digits.7"
    done = go(pod)
    assert (done.code, done.stderr) == (0, "")


def test_the_port_serves_ipv6_as_well_as_ipv4(pod):
    pod.start(sending({"step": 1}), environ=pod.environ(SWEEPRUN_HOST=None))
    pod.progress()
    families = [socket.AF_INET, *([socket.AF_INET6] if socket.has_dualstack_ipv6() else [])]
    for family in families:
        with socket.socket(family) as client:
            client.connect(("127.0.0.1" if family == socket.AF_INET else "::1", pod.port))
    go(pod)
