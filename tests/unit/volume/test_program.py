"""`python -m sweeprun_volume`, as the Job's containers run it."""

from __future__ import annotations

import os
import subprocess
import sys

from support.volume_sweep import CONFIG_NAME, make_request, with_init
from sweeprun_protocol.prepare import REQUEST_ENV, PrepareReport
from sweeprun_protocol.reasons import BlockedReason, Outcome


def run(*arguments, request=None):
    environment = {**os.environ, **({REQUEST_ENV: request} if request is not None else {})}
    return subprocess.run(
        [sys.executable, "-m", "sweeprun_volume", *arguments], env=environment, capture_output=True, text=True
    )


def test_prepare_writes_its_answer_into_the_termination_log_in_place(sweep, tmp_path):
    log = tmp_path.parent / f"{tmp_path.name}-log"
    log.write_bytes(b"x" * 5000)
    inode = log.stat().st_ino
    done = run("prepare", "--root", str(tmp_path), "--report", str(log), request=make_request().encode())
    assert (done.returncode, done.stderr) == (0, "")
    report = PrepareReport.decode(log.read_bytes())
    assert (report.outcome, log.stat().st_ino) == (Outcome.FRESH, inode)
    assert PrepareReport.decode(done.stdout.encode()) == report
    assert sweep.runs() == [report.run_id]


def test_blocked_is_an_answer_too(tmp_path):
    log = tmp_path / "log"
    done = run("prepare", "--root", str(tmp_path / "gone"), "--report", str(log), request=make_request().encode())
    assert done.returncode == 0
    assert PrepareReport.decode(log.read_bytes()).blocked is BlockedReason.IO_ERROR


def test_a_request_that_cannot_be_read_is_wrong_usage_and_gives_no_answer(tmp_path):
    log = tmp_path / "log"
    for request in ("", "{}", make_request().encode()[:-20]):
        done = run("prepare", "--root", str(tmp_path), "--report", str(log), request=request)
        assert done.returncode == 2
        assert REQUEST_ENV in done.stderr
    assert not log.exists()


def test_the_containers_of_sweep_init_make_its_directory_and_finish_it(sweep, tmp_path):
    log = tmp_path.parent / f"{tmp_path.name}-log"
    made = run("make-init-dir", "--root", str(tmp_path), "--key", "uid-0-0", "--staging", "pod-a")
    assert made.returncode == 0
    (tmp_path / made.stdout.strip() / CONFIG_NAME).write_bytes(b"lr: 1\n")
    arguments = ("finish-init", "--root", str(tmp_path), "--report", str(log), "--staging", "pod-a")
    assert run(*arguments, request=with_init().encode()).returncode == 0
    report = PrepareReport.decode(log.read_bytes())
    assert report.outcome is Outcome.FRESH
    assert (sweep.directory(report.run_id) / CONFIG_NAME).read_bytes() == b"lr: 1\n"
