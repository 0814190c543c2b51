"""What W&B could not be told is told later, each step once: `sweeprun tracking sync`, with W&B's own client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.wandb_server import Run, RunningServer, serve
from support.wandb_server.client import QUICK
from sweeprun_protocol.layout import MARKER, RunLayout

from .conftest import ENTITY, PROJECT, RUN

SCRIPT = Path(__file__).with_name("tracker_script.py")
KNOWN = {"WANDB_ENTITY": ENTITY, "WANDB_PROJECT": PROJECT, "WANDB_RUN_ID": RUN, "WANDB_RESUME": "allow"}


@dataclass
class Volume:
    """A run directory, the attempts that log there, and the command."""

    root: Path
    home: Path
    server: RunningServer

    def attempt(self, epoch: int, first: int, last: int, end: str = "0", *, mode: str = "offline", **more: str) -> str:
        """Returns what it said."""
        own = {"WANDB_MODE": mode, "WANDB_DIR": f"{self.root}/wandb/e{epoch}", **more}
        command = [sys.executable, str(SCRIPT), str(self.root), str(epoch), str(first), str(last), end]
        environ = {**self.environ, **KNOWN, **own}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, start_new_session=True)
        assert done.returncode == (-9 if end == "kill" else 0), done.stderr
        return done.stderr

    def sync(self, *options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "sweeprun_cli", "tracking", "sync", str(self.root), *options]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    @property
    def environ(self) -> dict[str, str]:
        return {**QUICK, **self.server.client_environ(str(self.home))}

    @property
    def run(self) -> Run:
        return self.server.run(ENTITY, PROJECT, RUN)

    @property
    def posts(self) -> int:
        events = self.server.journal().events
        return sum(event["request"]["path"].endswith("/file_stream") for event in events)

    def claim(self, epoch: int) -> None:
        """An attempt of this epoch is under way."""
        (self.root / MARKER).touch()
        claim = self.root / RunLayout("").claim(epoch)
        claim.parent.mkdir(exist_ok=True)
        claim.touch()


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    root, home = tmp_path / "run", tmp_path / "home"
    root.mkdir()
    home.mkdir()
    with serve() as server:
        yield Volume(root, home, server)


def test_attempts_are_sent_in_their_order_and_once(volume: Volume) -> None:
    volume.attempt(1, 1, 10, "143", WANDB_SWEEP_ID="sweep-1")
    volume.attempt(2, 6, 12, "0", WANDB_SWEEP_ID="sweep-1")  # after a walk-back to step 5
    assert volume.sync("--dry-run")[0] == 0
    assert volume.server.journal().find(ENTITY, PROJECT, RUN) is None

    assert volume.sync()[0] == 0
    assert volume.run.steps == volume.run.values("trainer/global_step") == list(range(1, 13))
    assert volume.run.values("loss") == [*range(1001, 1006), *range(2006, 2013)]
    assert volume.run.values("sweeprun/attempt") == [0] * 5 + [1] * 7
    assert (volume.run.exit_codes, volume.run.sweep) == ([0], "sweep-1")
    assert volume.run.raw["config"]["lr"]["value"] == 1

    posts = volume.posts
    code, said = volume.sync()
    assert (code, volume.posts) == (0, posts), said


def test_what_wandb_has_is_not_sent_and_what_it_lacks_is(volume: Volume, tmp_path: Path) -> None:
    volume.attempt(1, 1, 5, "143", mode="online", WANDB_DIR=str(tmp_path))
    said = volume.attempt(2, 4, 9, "0", mode="online", WANDB_DIR=str(tmp_path), WANDB_API_KEY="")
    assert "training goes on without it" in said
    assert volume.run.steps == [1, 2, 3, 4, 5]

    assert volume.sync()[0] == 0
    assert volume.run.steps == list(range(1, 10))
    assert volume.run.values("loss") == [*range(1001, 1006), *range(2006, 2010)]
    assert (volume.run.exit_codes, volume.run.conflicts) == ([143, 0], [])


def test_a_run_that_went_on_online_is_left_as_it_is(volume: Volume, tmp_path: Path) -> None:
    volume.attempt(1, 1, 5, "143")
    volume.attempt(2, 1, 9, "0", mode="online", WANDB_DIR=str(tmp_path))
    posts = volume.posts
    assert volume.sync()[0] == 0
    assert (volume.posts, volume.run.exit_codes) == (posts, [0])
    assert set(volume.run.values("loss")) == set(range(2001, 2010))


def test_what_a_killed_process_had_written_down_is_sent_and_the_run_is_not_finished(volume: Volume) -> None:
    volume.attempt(1, 1, 2000, "kill")
    code, said = volume.sync()
    assert code == 0, said
    assert volume.run.steps == list(range(1, len(volume.run.steps) + 1)) != []
    assert volume.run.exit_codes == [1]


def test_a_process_that_was_online_is_never_sent(volume: Volume) -> None:
    volume.attempt(1, 1, 5, "143", mode="online")
    posts = volume.posts
    code, said = volume.sync()
    assert (code, volume.posts) == (0, posts)
    assert "which has its rows: left out" in said


@pytest.mark.parametrize(("claimed", "refused"), [(2, True), (1, False)], ids=["online", "offline"])
def test_while_an_attempt_may_speak_to_wandb_nothing_is_sent(volume: Volume, claimed: int, refused: bool) -> None:
    volume.attempt(1, 1, 5, "143")
    volume.claim(claimed)
    code, said = volume.sync()
    assert code == (2 if refused else 0), said
    assert ("two writers" in said, volume.posts == 0) == (refused, refused)


def test_a_deleted_run_is_named_and_waited_for_within_bounds(volume: Volume, tmp_path: Path) -> None:
    volume.attempt(1, 1, 5, "143", mode="online", WANDB_DIR=str(tmp_path))
    code = "import wandb; wandb.Api().run('team/project/run-1').delete()"
    subprocess.run([sys.executable, "-c", code], env=volume.environ, check=True)
    said = volume.attempt(2, 4, 9, "0", mode="online", WANDB_DIR=str(tmp_path), WANDB_INIT_TIMEOUT="2")
    assert "previously created and deleted" in said
    assert os.listdir(volume.root / "wandb") == ["e2"]
    assert volume.server.journal().find(ENTITY, PROJECT, RUN) is None


def test_what_was_logged_without_steps_is_left_to_wandb(volume: Volume) -> None:
    code = "import wandb; run = wandb.init(); run.log({'loss': 1.0}); run.finish()"
    own = {"WANDB_MODE": "offline", "WANDB_DIR": f"{volume.root}/wandb/e1"}
    subprocess.run([sys.executable, "-c", code], env={**volume.environ, **KNOWN, **own}, check=True)
    code, said = volume.sync()
    assert code == 0
    assert "without step=" in said
    assert volume.posts == 0
