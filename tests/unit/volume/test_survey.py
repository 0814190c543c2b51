"""A survey reads ahead of the prepare to come; prepare believes it of what is unchanged to the last change time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from support.network_cache import NetworkFileSystem
from support.volume_checkpoints import CONTENT, flip, rewrite, saved, stored, without_crcs
from support.volume_sweep import OTHER, Sweep, clock_without_waiting
from sweeprun_protocol.layout import VERDICTS
from sweeprun_protocol.prepare import REQUEST_ENV, PrepareReport
from sweeprun_protocol.reasons import Format, Level, OnNoValidCheckpoint, Outcome, RefusalReason
from sweeprun_volume import surveyor
from sweeprun_volume.clock import Clock
from sweeprun_volume.identity import RACY_SECONDS, identity_of
from sweeprun_volume.operations import Volume
from sweeprun_volume.probe import probe_write
from sweeprun_volume.surveyor import survey
from sweeprun_volume.verdicts import SURVEY_SECONDS

UNCHECKED = without_crcs(saved({"step": 100}))


class Died(BaseException):
    """The survey's process is gone."""


class Surveyed(Sweep):
    def survey_request(self, **changes):
        """What the operator asks while the attempt that the last prepare let start is drained."""
        return replace(self.next_request(), prepare=self.last.prepare, **changes)

    def survey(self, *, seconds=5.0, clock=None, before=None, **changes):
        volume = Volume(str(self.root)) if before is None else Volume(str(self.root), before=before)
        return survey(volume, self.survey_request(**changes), seconds=seconds, clock=clock or clock_without_waiting())

    def verdicts(self):
        """Their records, by the names of the files."""
        place = self.directory() / VERDICTS
        found = sorted(place.iterdir()) if place.exists() else []
        return {path: json.loads(path.read_bytes()) for path in found if not path.name.startswith(".")}

    def surveyed(self):
        return [record["path"].rpartition("/")[2] for record in self.verdicts().values() if record.get("identity")]


@pytest.fixture
def sweep(tmp_path):
    return Surveyed(tmp_path)


@pytest.fixture
def later(monkeypatch):
    """The checkpoints of the test were written some time before the survey: nobody can set a change time back."""
    monkeypatch.setattr(surveyor, "probe_write", lambda volume: probe_write(volume) + 2 * RACY_SECONDS)


def begun(sweep, *saves):
    sweep.prepare()
    sweep.starts()
    for save in saves:
        save(sweep)
    return sweep


def own(step=100):
    return lambda sweep: sweep.save(step)


def foreign(data=UNCHECKED, name="step-100.pt"):
    return lambda sweep: sweep.put(name, data)


# -- what it spares ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [own(), foreign(), foreign(saved({"step": 100}))])
def test_prepare_reads_nothing_of_what_a_survey_found_whole_and_answers_the_same(sweep, later, tmp_path_factory, save):
    begun(sweep, save)
    sweep.survey()
    report = sweep.prepare()
    twin = begun(Surveyed(tmp_path_factory.mktemp("twin")), save)
    expected = twin.prepare()
    assert (report.checked_count, report.checked_bytes) == (1, 0)
    assert expected.checked_bytes > 0
    assert (report.outcome, report.checkpoint) == (Outcome.RESUME, expected.checkpoint)
    assert report.checkpoint.digest is not None


def test_the_first_look_of_a_survey_is_the_reference_for_later_ones(sweep, later):
    path = begun(sweep, foreign()).directory() / "checkpoints" / "step-100.pt"
    sweep.survey()
    assert sweep.prepare().checkpoint.digest is not None
    rewrite(path, flip(UNCHECKED, stored(UNCHECKED, "data/0").offset + 5), keep_time=True)
    (refusal,) = sweep.prepare(on_no_valid_checkpoint=OnNoValidCheckpoint.FAIL).refused
    assert (refusal.reason, refusal.entry) == (RefusalReason.DIGEST_MISMATCH, "step-100.pt")


def test_a_survey_changes_nothing_but_the_journal(sweep, later):
    begun(sweep, own(), foreign())
    before = {path: path.read_bytes() for path in sweep.root.rglob("*") if path.is_file()}
    sweep.survey()
    after = {path: path.read_bytes() for path in sweep.root.rglob("*") if path.is_file()}
    assert {path.parent.name for path in after.keys() - before.keys()} == {VERDICTS}
    assert {path: after.get(path) for path in before} == before


def test_a_checkpoint_that_is_saved_within_the_grace_counts(sweep, later):
    begun(sweep, own(100))
    sweep.survey()
    sweep.save(200)
    report = sweep.prepare()
    assert (report.checkpoint.step, report.checked_count) == (200, 1)
    assert report.checked_bytes > 0


def test_a_survey_goes_on_until_nothing_more_can_be_saved(sweep, later):
    begun(sweep, own(100))
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            sweep.save(200)
            sweep.ends(exit_code=143, told_to_stop=True)

    said = sweep.survey(seconds=60, clock=Clock(sleep=pause, monotonic=lambda: float(sum(pauses))))
    assert set(sweep.surveyed()) == {"step-000000100.e1", "step-000000200.e1"}
    assert said[-1] == "all pods have ended"
    assert len(pauses) == 2
    assert sweep.prepare().checked_bytes == 0


def test_a_survey_ends_when_its_time_is_up(sweep, later):
    clock = clock_without_waiting()
    begun(sweep, own(100))
    assert sweep.survey(seconds=30, clock=clock)[-1] == "the time of this survey is up"
    assert 30 <= clock.monotonic() <= 31


# -- what it does not spare --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_time", [True, False])
@pytest.mark.parametrize("save", [own(), foreign(saved({"step": 100}))])
def test_damage_after_the_survey_is_refused(sweep, later, save, keep_time):
    begun(sweep, save)
    sweep.survey()
    assert sweep.surveyed()
    (path,) = _weights(sweep)
    data = path.read_bytes()
    rewrite(path, flip(data, data.index(CONTENT) + 3), keep_time=keep_time)
    report = sweep.prepare(on_no_valid_checkpoint=OnNoValidCheckpoint.FAIL)
    (refusal,) = report.refused
    assert refusal.reason in (RefusalReason.DIGEST_MISMATCH, RefusalReason.CRC_MISMATCH)


def _weights(sweep):
    found = (sweep.directory() / "checkpoints").rglob("*.pt")
    return [path for path in found if CONTENT in path.read_bytes()]


def test_an_exchanged_file_is_read_again_though_size_and_newest_time_of_the_checkpoint_are_the_same(sweep, later):
    begun(sweep, own())
    (path,) = _weights(sweep)
    os.utime(path, (1, 1))
    sweep.survey()
    other = path.with_name("other")
    other.write_bytes(flip(path.read_bytes(), 9))
    os.utime(other, (1, 1))
    other.rename(path)
    (refusal,) = sweep.prepare(on_no_valid_checkpoint=OnNoValidCheckpoint.FAIL).refused
    assert refusal.reason is RefusalReason.DIGEST_MISMATCH


def test_another_node_sees_damage_that_its_file_system_remembers_nothing_of(sweep, later):
    with NetworkFileSystem() as network:
        with network.as_client("a"):
            begun(sweep, own())
        with network.as_client("b"):
            sweep.survey(clock=network.clock(), seconds=1.0)
            assert sweep.surveyed()
        (path,) = _weights(sweep)
        rewrite(path, flip(path.read_bytes(), 9))
        with network.as_client("b"):
            report = sweep.ask(sweep.next_request(), clock=network.clock())
        assert [item.reason for item in report.refused] == [RefusalReason.DIGEST_MISMATCH]


def test_what_is_not_whole_is_not_recorded_and_the_next_older_one_is_read(sweep, later):
    begun(sweep, own(100), own(200))
    rewrite(sweep.directory() / "checkpoints" / "step-000000200.e1" / "model.pt", b"torn")
    sweep.survey()
    assert sweep.surveyed() == ["step-000000100.e1"]
    assert len(sweep.verdicts()) == 1
    report = sweep.prepare()
    assert (report.checkpoint.step, [item.path for item in report.refused]) == (100, ["checkpoints/step-000000200.e1"])


def test_what_changes_while_it_is_read_is_not_recorded(sweep, later, monkeypatch):
    begun(sweep, foreign())
    look_at = surveyor.look_at

    def disturbed(context, candidate):
        found = look_at(context, candidate)
        path = sweep.directory() / candidate.path
        rewrite(path, flip(UNCHECKED, stored(UNCHECKED, "data/0").offset + 5), keep_time=True)
        return found

    monkeypatch.setattr(surveyor, "look_at", disturbed)
    sweep.survey(seconds=0.5)
    assert not sweep.verdicts()
    monkeypatch.setattr(surveyor, "look_at", look_at)
    sweep.survey(seconds=0.5)
    assert sweep.surveyed() == ["step-100.pt"]


def test_what_was_written_a_moment_ago_is_not_believed_to_be_unchanged(sweep, monkeypatch):
    """As in git's index: a second write within one tick of the volume's clock leaves no sign."""
    begun(sweep, foreign())
    sweep.survey(seconds=0.5)
    assert not sweep.verdicts()
    monkeypatch.setattr(surveyor, "probe_write", lambda volume: probe_write(volume) + RACY_SECONDS + 1)
    sweep.survey(seconds=0.5)
    assert sweep.surveyed() == ["step-100.pt"]


def test_a_time_in_the_future_says_nothing_of_when_it_was_written(sweep, later):
    path = begun(sweep, foreign()).directory() / "checkpoints" / "step-100.pt"
    os.utime(path, (time.time() + 3600,) * 2)
    sweep.survey(seconds=0.5)
    assert not sweep.verdicts()


def test_a_survey_stands_for_the_next_prepare_only(sweep, later):
    begun(sweep, own())
    sweep.survey()
    assert sweep.prepare().checked_bytes == 0
    assert sweep.prepare().checked_bytes > 0


def test_an_old_survey_does_not_stand(sweep, later):
    begun(sweep, own())
    sweep.survey()
    (record,) = sweep.verdicts()
    before = time.time() - SURVEY_SECONDS - 10
    os.utime(record, (before, before))
    assert sweep.prepare().checked_bytes > 0


def test_a_survey_for_another_format_does_not_stand(sweep, later):
    begun(sweep, foreign())
    sweep.survey(format=Format.TORCH)
    assert sweep.prepare(format=Format.AUTO).checked_bytes > 0


def test_after_a_deletion_by_force_everything_is_read_again(sweep, later):
    begun(sweep, own())
    sweep.survey()
    assert sweep.prepare(drain_forced=True).checked_bytes > 0


def test_the_digest_in_status_outweighs_a_survey(sweep, later):
    begun(sweep, own())
    first = sweep.prepare()
    sweep.starts()
    sweep.survey()
    pinned = replace(first.checkpoint, digest="sha256:" + "0" * 64)
    (refusal,) = sweep.prepare(pinned=pinned).refused
    assert refusal.reason is RefusalReason.DIGEST_MISMATCH


def test_a_fast_survey_does_not_stand_for_a_full_look(sweep, later):
    begun(sweep, own())
    sweep.survey(level=Level.FAST)
    assert sweep.surveyed()
    assert sweep.prepare(level=Level.FULL).checked_bytes > 0


# -- whose run it is ---------------------------------------------------------------------------------------------------


def test_nothing_is_read_of_a_run_that_another_prepare_has(sweep, later):
    begun(sweep, own())
    asked = sweep.survey_request()
    sweep.prepare()
    records = sweep.verdicts()
    survey(Volume(str(sweep.root)), asked, seconds=5, clock=clock_without_waiting())
    assert sweep.verdicts() == records
    survey(Volume(str(sweep.root)), replace(sweep.survey_request(), owner=OTHER), seconds=5)
    assert sweep.verdicts() == records


def test_before_there_is_a_run_there_is_nothing_to_survey(sweep):
    sweep.prepare()
    said = sweep.survey(run_id=None, started=False)
    assert said == ["there is no run yet"]


def test_another_volume_is_not_touched(sweep, later):
    begun(sweep, own())
    (said,) = sweep.survey(volume_id="0" * 32)
    assert "another volume" in said
    assert not sweep.verdicts()


def test_of_an_attempt_that_completed_the_run_nothing_is_read(sweep, later):
    begun(sweep, own())
    sweep.ends()
    assert "nothing is to be resumed" in sweep.survey()[-1]
    assert not sweep.verdicts()


# -- accidents ---------------------------------------------------------------------------------------------------------


def test_a_survey_may_die_before_any_of_its_writes(sweep, later):
    begun(sweep, own(100), foreign())
    writes = []
    sweep.survey(before=lambda *operation: writes.append(operation))
    assert len(writes) > 5
    for last in range(len(writes)):
        seen = []

        def before(*operation, seen=seen, last=last):
            seen.append(operation)
            if len(seen) > last:
                raise Died

        shutil.rmtree(sweep.directory() / VERDICTS, ignore_errors=True)
        with pytest.raises(Died):
            sweep.survey(before=before)
    report = sweep.prepare()
    assert (report.outcome, report.checkpoint.step) == (Outcome.RESUME, 100)


def test_an_io_error_ends_it_without_a_verdict(sweep, later, monkeypatch):
    begun(sweep, own())

    def fails(volume, place):
        raise OSError("EIO")

    monkeypatch.setattr(surveyor, "identity_of", fails)
    assert sweep.survey()[-1].startswith("given up")
    assert not sweep.verdicts()


def test_an_identity_is_that_of_every_file(sweep):
    place = begun(sweep, own()).directory() / "checkpoints" / "step-000000100.e1"
    volume, inside = Volume(str(sweep.root)), str(place.relative_to(sweep.root))
    seen = {identity_of(volume, inside).digest}
    for change in (
        lambda: os.utime(place / "empty.txt", (1, 1)),
        lambda: (place / "more.txt").write_bytes(b""),
        lambda: (place / "more.txt").rename(place / "other.txt"),
        lambda: os.chmod(place / "model.pt", 0o600),
    ):
        change()
        seen.add(identity_of(volume, inside).digest)
    assert len(seen) == 5
    (place / "link").symlink_to("model.pt")
    assert identity_of(volume, inside) is None


# -- real processes ----------------------------------------------------------------------------------------------------


def launch(sweep, request, *arguments):
    command = [sys.executable, "-m", "sweeprun_volume", *arguments, "--root", str(sweep.root)]
    environment = {**os.environ, REQUEST_ENV: request.encode()}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition, process):
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_many_surveys_at_once_and_a_prepare_beside_them_are_harmless(sweep, tmp_path_factory):
    begun(sweep, own(100), own(200))
    damaged = sweep.directory() / "checkpoints" / "step-000000200.e1" / "model.pt"
    rewrite(damaged, flip(damaged.read_bytes(), 3), keep_time=True)
    surveys = [launch(sweep, sweep.survey_request(), "survey", "--seconds", "120") for _ in range(4)]
    wait_until(sweep.surveyed, surveys[0])
    log = tmp_path_factory.mktemp("log") / "log"
    preparing = launch(sweep, sweep.next_request(), "prepare", "--report", str(log))
    _, err = preparing.communicate(timeout=60)
    assert (preparing.returncode, err) == (0, "")
    for process in surveys:
        # the claim ends them by itself
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert "another prepare has the run" in out
    report = PrepareReport.decode(log.read_bytes())
    assert (report.outcome, report.checkpoint.step, report.checked_count) == (Outcome.RESUME, 100, 2)
    assert [item.path for item in report.refused] == ["checkpoints/step-000000200.e1"]
    assert [claim["epoch"] for claim in sweep.claims()] == [1, 2]
    assert not list(sweep.root.rglob(".tmp-*"))


def test_a_survey_that_is_told_to_go_goes_at_once(sweep):
    begun(sweep, own())
    process = launch(sweep, sweep.survey_request(), "survey", "--seconds", "600")
    wait_until(sweep.surveyed, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.communicate()
