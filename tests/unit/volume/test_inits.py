"""sweep_init: at least once for each fresh start, the first pod to publish is final; and the configuration file."""

from __future__ import annotations

import json

import pytest

from support.volume_sweep import CONFIG, CONFIG_NAME, OTHER, make_request, with_init
from sweeprun_protocol.reasons import BlockedReason, Outcome, StartReason
from sweeprun_volume.inits import make_init_directory, publish_init
from sweeprun_volume.operations import Volume

DRAWN = b"# drawn\nlr:   0.02   # as it is\r\n\xff\n"


def leaves(sweep, staging, config=DRAWN, *, key="uid-0-0", **said):
    files = [] if config is None else [(CONFIG_NAME, config)]
    if said:
        files.append(("run.json", json.dumps(said).encode()))
    sweep.init_leaves(staging, key=key, files=files)


def test_a_new_run_asks_for_sweep_init_and_claims_nothing(sweep):
    report = sweep.ask(with_init())
    assert (report.outcome, report.epoch, report.run_id) == (Outcome.INIT_REQUIRED, 0, None)
    assert sweep.runs() == []


def test_what_sweep_init_left_becomes_the_run_byte_for_byte(sweep):
    leaves(sweep, "pod-a", runId="drawn-1", wandbRunId="w-1")
    report = sweep.finish_init(with_init(), "pod-a")
    assert (report.outcome, report.run_id, report.wandb_run_id) == (Outcome.FRESH, "drawn-1", "w-1")
    assert (sweep.directory("drawn-1") / CONFIG_NAME).read_bytes() == DRAWN


def test_the_first_pod_of_sweep_init_is_final(sweep):
    leaves(sweep, "pod-a", b"first", runId="drawn-1")
    leaves(sweep, "pod-b", b"second", runId="drawn-2")
    assert sweep.finish_init(with_init(), "pod-b").run_id == "drawn-2"
    again = sweep.finish_init(with_init(), "pod-a")
    assert (again.run_id, again.epoch) == ("drawn-2", 1)
    assert sweep.runs() == ["drawn-2"]
    assert (sweep.directory("drawn-2") / CONFIG_NAME).read_bytes() == b"second"


def test_the_first_pod_is_final_though_it_died_before_it_claimed_the_run(sweep):
    leaves(sweep, "pod-a", b"first", runId="drawn-1")
    leaves(sweep, "pod-b", b"second", runId="drawn-2")
    volume = Volume(str(sweep.root))
    publish_init(volume, with_init(), staging="pod-a")
    report = sweep.finish_init(with_init(), "pod-b")
    assert report.run_id == "drawn-1"
    assert (sweep.directory("drawn-1") / CONFIG_NAME).read_bytes() == b"first"


def test_sweep_init_does_not_run_again_on_a_resume(sweep):
    leaves(sweep, "pod-a")
    sweep.last = sweep.finish_init(with_init(), "pod-a")
    sweep.save(100)
    request = with_init()
    report = sweep.prepare(init_key="uid-0-1", configuration=request.configuration)
    assert (report.outcome, report.checkpoint.step) == (Outcome.RESUME, 100)


def test_each_fresh_start_asks_for_sweep_init_anew(sweep):
    leaves(sweep, "pod-a")
    sweep.last = sweep.finish_init(with_init(), "pod-a")
    (sweep.save(100) / "model.pt").write_bytes(b"torn")
    old = sweep.run_id
    configuration = with_init().configuration
    for key in ("uid-0-0", "uid-0-1"):
        request = sweep.next_request(init_key=key, fresh_number=1, configuration=configuration)
        asked = sweep.ask(request)
        assert (asked.outcome, asked.previous_run_id) == (Outcome.INIT_REQUIRED, old), asked.message
    leaves(sweep, "pod-b", b"second", key="uid-0-1")
    report = sweep.finish_init(request, "pod-b")
    assert (report.outcome, report.reason, report.previous_run_id) == (
        Outcome.FRESH,
        StartReason.ALL_REFUSED,
        old,
    )
    assert (sweep.directory(report.run_id) / CONFIG_NAME).read_bytes() == b"second"


def test_sweep_init_that_names_the_refused_run_again_is_told_so(sweep):
    leaves(sweep, "pod-a", runId="always")
    sweep.last = sweep.finish_init(with_init(), "pod-a")
    (sweep.save(100) / "model.pt").write_bytes(b"torn")
    leaves(sweep, "pod-b", key="uid-0-1", runId="always")
    request = sweep.next_request(init_key="uid-0-1", fresh_number=1, configuration=with_init().configuration)
    report = sweep.finish_init(request, "pod-b")
    assert report.blocked is BlockedReason.INIT_INVALID
    assert not (sweep.directory("always") / "superseded-by.json").exists()


def test_a_run_id_that_another_holds_is_taken(sweep):
    assert sweep.ask(make_request(owner=OTHER, run_id="drawn-1")).outcome is Outcome.FRESH
    leaves(sweep, "pod-a", runId="drawn-1")
    report = sweep.finish_init(with_init(), "pod-a")
    assert report.blocked is BlockedReason.RUN_ID_TAKEN
    assert "uid-1" in report.message


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, b'{"runId":"x"}'),
        (b"x", b'{"runId":"../x"}'),
        (b"x", b'{"runId":7}'),
        (b"x", b"run-1\n"),
        (b"x" * (2 << 20), b"{}"),
    ],
)
def test_what_no_run_can_be_made_of_is_not_published(config, said, sweep):
    files = [("run.json", said)] if config is None else [("run.json", said), (CONFIG_NAME, config)]
    sweep.init_leaves("pod-a", files=files)
    report = sweep.finish_init(with_init(), "pod-a")
    assert (report.outcome, report.blocked) == (Outcome.BLOCKED, BlockedReason.INIT_INVALID)
    leaves(sweep, "pod-b")
    assert sweep.finish_init(with_init(), "pod-b").outcome is Outcome.FRESH


def test_a_configuration_of_sweep_init_that_is_a_link_is_not_followed(sweep, tmp_path):
    leaves(sweep, "pod-a", None)
    (tmp_path / ".sweeprun-inits" / "uid-0-0" / "pod-a" / CONFIG_NAME).symlink_to("/etc/passwd")
    assert sweep.finish_init(with_init(), "pod-a").blocked is BlockedReason.INIT_INVALID


def test_a_spec_that_names_another_run_than_sweep_init_is_told_so(sweep):
    leaves(sweep, "pod-a", runId="drawn-1")
    report = sweep.finish_init(with_init(run_id="wanted"), "pod-a")
    assert report.blocked is BlockedReason.INIT_INVALID


@pytest.mark.parametrize(("key", "staging"), [("../x", "pod"), ("key", "a/b"), ("key", "..")])
def test_a_staging_directory_lies_below_the_volume(key, staging, tmp_path):
    with pytest.raises(ValueError, match="plain file name"):
        make_init_directory(Volume(str(tmp_path)), key=key, staging=staging)


# -- the configuration file --------------------------------------------------------------------------------------------


def test_a_resume_never_writes_the_configuration_again(sweep):
    sweep.prepare()
    path = sweep.directory() / CONFIG_NAME
    before = path.stat()
    sweep.save(100)
    sweep.prepare()
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert path.read_text() == CONFIG


def test_a_configuration_that_was_changed_by_hand_is_blocked_and_left_alone(sweep):
    sweep.prepare()
    path = sweep.directory() / CONFIG_NAME
    path.write_text("lr: '0.5'\n")
    report = sweep.ask(sweep.next_request())
    assert report.blocked is BlockedReason.RECORD_INVALID
    assert CONFIG_NAME in report.message
    assert path.read_text() == "lr: '0.5'\n"


def test_a_configuration_that_was_removed_comes_back_where_the_specification_holds_it(sweep):
    first = sweep.prepare()
    path = sweep.directory() / CONFIG_NAME
    path.unlink()
    assert sweep.prepare().config_digest == first.config_digest
    assert path.read_text() == CONFIG


def test_a_configuration_that_was_removed_and_that_nobody_holds_is_blocked(sweep):
    leaves(sweep, "pod-a")
    sweep.last = sweep.finish_init(with_init(), "pod-a")
    (sweep.directory() / CONFIG_NAME).unlink()
    report = sweep.ask(sweep.next_request(configuration=with_init().configuration))
    assert report.blocked is BlockedReason.RECORD_INVALID


def test_a_new_run_does_not_take_a_configuration_that_lies_there_already_for_its_own(sweep):
    directory = sweep.directory("wanted")
    directory.mkdir(parents=True)
    (directory / CONFIG_NAME).write_text("lr: '0.5'\n")
    assert sweep.ask(make_request(run_id="wanted")).blocked is BlockedReason.RECORD_INVALID
    assert (directory / CONFIG_NAME).read_text() == "lr: '0.5'\n"


def test_a_run_without_any_configuration_is_possible(sweep):
    report = sweep.prepare(configuration=with_init().configuration)
    assert (report.outcome, report.config_file, report.config_digest) == (Outcome.FRESH, None, None)
