"""Two nodes on one network file system: what one has done, the other may not see for a minute.

The file system is simulated (no NFS can be mounted where tests run): see support/network_cache.py.
"""

from __future__ import annotations

import pytest

from support.network_cache import REMEMBERED, NetworkFileSystem, leave_removed_but_open
from support.training import Rig, checkpointer
from support.volume_checkpoints import saved
from support.volume_sweep import OTHER, OWNER, adopting, make_request
from sweeprun_protocol.layout import RunLayout
from sweeprun_protocol.reasons import BlockedReason, Outcome, StartReason
from sweeprun_volume.claims import highest_epoch
from sweeprun_volume.decisions import newest_decision
from sweeprun_volume.fence import later_claim
from sweeprun_volume.operations import Volume


@pytest.fixture
def network():
    with NetworkFileSystem() as network:
        yield network


class Nodes:
    """The sweep's prepares, each on a node of its own choice."""

    def __init__(self, sweep, network):
        self.sweep, self.network = sweep, network

    def ask(self, node, request):
        with self.network.as_client(node):
            return self.sweep.ask(request, clock=self.network.clock())

    def prepare(self, node, **changes):
        self.sweep.last = self.ask(node, self.sweep.next_request(**changes))
        return self.sweep.last

    def look(self, node):
        """All that a pod or an earlier prepare on this node may have looked at, and what was not there yet."""
        layout = RunLayout(str(self.sweep.directory().relative_to(self.sweep.root)))
        with self.network.as_client(node):
            volume = Volume(str(self.sweep.root))
            highest_epoch(volume, layout)
            volume.exists(layout.result)
            for epoch in range(1, self.sweep.epoch + 2):
                newest_decision(volume, layout, below=epoch + 1)
                for slot in ("master-0", "worker-0"):
                    volume.exists(layout.end(epoch, slot))
            for directory in ("checkpoints", f"epochs/{self.sweep.epoch}", "quarantine"):
                for entry in volume.entries(f"{layout.directory}/{directory}"):
                    volume.facts(f"{layout.directory}/{directory}/{entry.name}")


@pytest.fixture
def nodes(sweep, network):
    return Nodes(sweep, network)


def test_the_simulation_hides_what_another_node_did_for_a_minute(tmp_path, network):
    volume = Volume(str(tmp_path))
    with network.as_client("b"):
        assert not volume.exists("record")
        assert volume.entries("") == []
    with network.as_client("a"):
        assert volume.publish("record", b"one")
    with network.as_client("b"):
        assert volume.read("record", limit=10) is None
        assert volume.entries("") == []
        network.now += REMEMBERED
        assert volume.read("record", limit=10) == b"one"
        assert [entry.name for entry in volume.entries("")] == ["record"]


def test_looking_anew_shows_what_another_node_did(tmp_path, network):
    volume = Volume(str(tmp_path))
    with network.as_client("b"):
        assert not volume.exists("record")
    (tmp_path / "record").write_bytes(b"one")
    with network.as_client("b"):
        volume.look_anew("")
        assert volume.exists("record")


def test_the_newest_checkpoint_is_found_though_the_listing_is_old(nodes):
    nodes.prepare("a")
    nodes.sweep.save(100)
    nodes.prepare("a")
    nodes.look("b")
    nodes.sweep.save(200)
    report = nodes.prepare("b")
    assert (report.outcome, report.checkpoint.step) == (Outcome.RESUME, 200)


def test_a_foreign_file_that_was_written_on_is_not_taken_for_what_it_was(nodes):
    nodes.prepare("a")
    nodes.sweep.put("step-100.pt", saved({"step": 100}))
    nodes.prepare("a")
    nodes.look("b")
    nodes.sweep.put("step-100.pt", saved({"step": 100, "anew": "x" * 50}))
    report = nodes.prepare("b")
    assert (report.outcome, report.checkpoint.epoch) == (Outcome.RESUME, 2)


def test_a_branch_that_was_abandoned_on_another_node_is_not_read(nodes):
    """This node asked for the decision when there was none, and remembers that."""
    nodes.prepare("b")
    for step in (100, 200, 300):
        nodes.sweep.save(step)
    nodes.network.now += REMEMBERED
    nodes.look("b")
    assert nodes.prepare("a", from_step=150).checkpoint.step == 100
    assert nodes.prepare("b").checkpoint.step == 100


def test_a_checkpoint_of_an_epoch_whose_decision_is_remembered_as_missing_is_not_lost(nodes):
    nodes.prepare("b")
    nodes.sweep.save(100)
    nodes.network.now += REMEMBERED
    nodes.look("b")
    nodes.prepare("a")
    nodes.sweep.save(150)
    assert nodes.prepare("b").checkpoint.step == 150


def test_an_epoch_that_is_known_and_does_not_show_is_no_older_copy_of_the_volume(nodes):
    nodes.prepare("b")
    nodes.look("b")
    nodes.prepare("a")
    report = nodes.prepare("b")
    assert (report.outcome, report.epoch) == (Outcome.RESTART, 3), report.message


def test_ends_that_were_asked_for_too_early_complete_the_run(nodes):
    nodes.prepare("a")
    nodes.sweep.save(100)
    nodes.look("b")
    nodes.sweep.starts()
    nodes.sweep.ends()
    assert nodes.prepare("b").outcome is Outcome.COMPLETED


def test_a_run_that_another_node_completed_stays_completed(nodes):
    nodes.prepare("a")
    nodes.sweep.starts()
    nodes.sweep.ends()
    nodes.look("b")
    request = nodes.sweep.next_request()
    assert nodes.ask("a", request).outcome is Outcome.COMPLETED
    late = nodes.ask("b", nodes.sweep.next_request(prepare=request.prepare + 1))
    assert late.outcome is Outcome.COMPLETED
    assert not (nodes.sweep.directory() / ".incomplete").exists()


def test_of_two_that_adopt_on_two_nodes_one_gets_it(nodes):
    nodes.prepare("a", owner=OTHER)
    nodes.sweep.save(100)
    nodes.look("b")
    taking = adopting(take=nodes.sweep.run_id, take_epoch=1)
    first = nodes.ask("a", make_request(adoption=taking))
    second = nodes.ask("b", make_request(owner=OTHER.__class__("cluster-a", "n", "x", "uid-2"), adoption=taking))
    assert (first.outcome, second.blocked) == (Outcome.RESUME, BlockedReason.ADOPTION_LOST)


def test_an_owner_whose_run_was_adopted_hears_of_it_though_it_does_not_show(nodes):
    nodes.prepare("b")
    nodes.look("b")
    request = nodes.sweep.next_request()
    taking = adopting(take=nodes.sweep.run_id, take_epoch=1)
    assert nodes.ask("a", make_request(owner=OTHER, adoption=taking)).outcome is Outcome.RESTART
    assert nodes.ask("b", request).blocked is BlockedReason.CLAIM_LOST


def test_a_lost_answer_is_found_on_another_node_before_a_new_run_is_made(nodes):
    """The listing of runs is old, and the operator knows no run ID."""
    nodes.ask("b", make_request(owner=OTHER))
    first = nodes.ask("a", make_request())
    again = nodes.ask("b", make_request(prepare=1))
    assert (again.run_id, again.epoch, again.reason) == (first.run_id, 2, StartReason.NOTHING_COMMITTED)


def test_a_zombie_learns_of_the_later_claim_within_a_minute_and_its_commit_is_not_read(nodes):
    nodes.prepare("b")
    nodes.sweep.save(100)
    nodes.look("b")
    nodes.prepare("a")
    layout = RunLayout(str(nodes.sweep.directory().relative_to(nodes.sweep.root)))
    with nodes.network.as_client("b"):
        volume = Volume(str(nodes.sweep.root))
        assert later_claim(volume, layout, epoch=1) is None, "remembered: there was none"
        nodes.sweep.save(900, epoch=1)
        nodes.network.now += REMEMBERED
        assert later_claim(volume, layout, epoch=1) == 2
    assert nodes.prepare("b").checkpoint.step == 100


# -- requests that are repeated, stale handles, files that are removed and open ----------------------------------------


@pytest.mark.parametrize("kind", ["link", "rename", "unlink", "rmdir", "mkdir"])
def test_a_request_that_is_repeated_counts_once(kind, nodes):
    nodes.network.repeated = {kind}
    assert nodes.prepare("a").outcome is Outcome.FRESH
    nodes.sweep.save(100)
    (nodes.sweep.save(200) / "model.pt").write_bytes(b"torn")
    report = nodes.prepare("a")
    assert (report.outcome, report.epoch, report.checkpoint.step) == (Outcome.RESUME, 2, 100), report.message
    assert [item["owner"]["uid"] for item in nodes.sweep.claims()] == [OWNER.uid, OWNER.uid]
    assert len(list((nodes.sweep.directory() / "quarantine").iterdir())) == 2
    assert not list(nodes.sweep.root.rglob(".tmp-*"))


@pytest.mark.parametrize("kind", ["link", "rename", "unlink", "mkdir"])
def test_a_commit_whose_requests_are_repeated_is_committed(kind, tmp_path, network):
    network.repeated = {kind}
    assert checkpointer(tmp_path / "run", Rig()).save(10)
    assert (tmp_path / "run" / "checkpoints" / "step-000000010.e1" / "manifest.json").exists()


def test_a_stale_handle_is_no_verdict_and_the_next_prepare_goes_on(nodes):
    nodes.prepare("a")
    nodes.sweep.save(100)
    request = nodes.sweep.next_request()
    stale = 0
    for at in range(0, 400, 7):
        opened = []

        def before(path, flags, mode=0o777, *, dir_fd=None, at=at, opened=opened):
            opened.append(path)
            nodes.network.stale = int(len(opened) == at + 1)
            return NetworkFileSystem.open(nodes.network, path, flags, mode, dir_fd=dir_fd)

        nodes.network.open = before
        report = nodes.ask("a", request)
        if report.outcome is Outcome.BLOCKED:
            stale += 1
            assert (report.blocked, report.refused) == (BlockedReason.IO_ERROR, ()), report.message
    del nodes.network.open
    assert stale > 0
    assert (nodes.ask("a", request).checkpoint.step, len(nodes.sweep.claims())) == (100, 2)
    assert not (nodes.sweep.directory() / "quarantine").exists()


def test_files_that_are_removed_and_still_open_are_nobodys(nodes):
    nodes.prepare("a")
    whole = nodes.sweep.save(100)
    run = nodes.sweep.directory()
    for directory in (run, run / "claims", run / "epochs" / "1", run / "checkpoints", whole):
        leave_removed_but_open(directory)
    assert nodes.prepare("b").checkpoint.step == 100
