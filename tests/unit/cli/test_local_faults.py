"""When a fault strikes, what it strikes, and what a flipped bit is."""

from __future__ import annotations

import pytest

from sweeprun_cli.local.faults import Disturber, Fault, Means, flip_bit, newest_checkpoint
from sweeprun_cli.local.progress import Steps


class Pods:
    """What a disturber sees of a cluster."""

    def __init__(self, *names):
        self.names = names
        self.struck = []

    def trainers(self, *, running):
        assert running
        return [{"metadata": {"name": name}} for name in self.names]

    def evict(self, pod):
        self.struck.append(("evicted", pod["metadata"]["name"]))
        return True

    def kill(self, pod):
        self.struck.append(("killed", pod["metadata"]["name"]))
        return True


@pytest.mark.parametrize(("text", "step", "seconds"), [("500", 500, None), ("5s", None, 5.0), ("0.5s", None, 0.5)])
def test_a_trigger_is_a_step_or_a_time(text, step, seconds):
    assert Fault.parse(Means.EVICT, text) == Fault(Means.EVICT, step, seconds)


@pytest.mark.parametrize("text", ["", "s", "5m", "-1", "1.5", "5 s"])
def test_any_other_trigger_is_refused(text):
    with pytest.raises(ValueError, match="neither a step"):
        Fault.parse(Means.EVICT, text)


def test_the_last_pod_is_struck_once_when_the_step_is_reached():
    pods = Pods("run-a0-master-0", "run-a0-worker-0")
    disturber = Disturber(pods, [Fault(Means.EVICT, 10, None)], pods=2)
    disturber.look(Steps(0, None, 2))
    disturber.look(Steps(0, 9, 2))
    assert pods.struck == []
    disturber.look(Steps(0, 10, 2))
    disturber.look(Steps(0, 11, 2))
    assert pods.struck == [("evicted", "run-a0-worker-0")]
    assert disturber.waiting == []


def test_a_time_runs_from_when_all_pods_do():
    pods = Pods("run-a0-master-0")
    disturber = Disturber(pods, [Fault(Means.KILL, None, 0.0)], pods=2)
    disturber.look(Steps(0, None, 1))
    assert pods.struck == []
    disturber.look(Steps(0, None, 2))
    assert pods.struck == [("killed", "run-a0-master-0")]


def test_a_fault_waits_where_no_pod_is_left():
    disturber = Disturber(Pods(), [Fault(Means.EVICT, 10, None)], pods=1)
    disturber.look(Steps(0, 10, 0))
    assert len(disturber.waiting) == 1


def test_one_bit_of_the_largest_file_is_flipped(tmp_path):
    checkpoint = tmp_path / "step-000000005.e1"
    checkpoint.mkdir()
    (checkpoint / "manifest.json").write_bytes(b"{}")
    (checkpoint / "model.pt").write_bytes(bytes(100))
    assert flip_bit(checkpoint) == checkpoint / "model.pt"
    changed = (checkpoint / "model.pt").read_bytes()
    assert sum(byte.bit_count() for byte in changed) == 1
    assert len(changed) == 100
    assert (checkpoint / "manifest.json").read_bytes() == b"{}"


def test_the_newest_checkpoint_is_the_one_written_last(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for name in ("step-5.pt", "step-10.pt", ".staging-15", "notes.txt"):
        (tmp_path / name).write_text(name)
    assert newest_checkpoint(tmp_path) == tmp_path / "step-10.pt"
