"""A real run directory, made by real prepares, as the pods of its attempts find it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from sweeprun_protocol.codec import dump
from sweeprun_protocol.environ import RunEnvironment
from sweeprun_protocol.layout import MANIFEST, RunLayout, step_name
from sweeprun_protocol.manifest import Manifest, ManifestFile
from sweeprun_protocol.prepare import Adoption, Configuration, PrepareReport, PrepareRequest
from sweeprun_protocol.reasons import (
    AdoptionScope,
    CompletionPolicy,
    Format,
    Level,
    OnNoValidCheckpoint,
    Outcome,
)
from sweeprun_protocol.records import Claim, EndRecord, Owner, StartRecord
from sweeprun_volume.hashing import ChunkHasher, preferred_algorithm
from sweeprun_volume.operations import Volume
from sweeprun_volume.prepare import prepare
from sweeprun_volume.records_io import read_record

OWNER = Owner(cluster="local", namespace="sweeps", name="run", uid="owner-uid")
RUN_ID = "digits.7"
SWEEP = "digits"


class RunDirectory:
    """`path` is the run directory; every `prepare()` claims an epoch, as a new attempt's would."""

    def __init__(self, root: Path, *, slots: tuple[str, ...] = ("master-0",)) -> None:
        root.mkdir()
        self.root = root
        self.slots = slots
        self.path = root / "sweep" / SWEEP / "runs" / RUN_ID
        self.checkpoints = self.path / "checkpoints"
        self.volume = Volume(str(self.path))
        self.layout = RunLayout("")
        self._prepares = 0
        self.report = self.prepare()

    @property
    def epoch(self) -> int:
        return self.report.epoch

    def prepare(self) -> PrepareReport:
        """The next prepare of this run's owner; fails where it is blocked."""
        request = PrepareRequest(
            owner=OWNER,
            prepare=self._prepares,
            sweep_name=SWEEP,
            run_directory="sweep/{sweepName}/runs/{runId}",
            run_id=RUN_ID,
            started=self._prepares > 0,
            volume_id=None,
            known_epoch=0,
            pinned=None,
            slots=self.slots,
            completion=CompletionPolicy.EXIT_CODE,
            configuration=Configuration("train_config_overrides.yaml", "lr: 0.1\n"),
            init_key=None,
            fresh_number=0,
            adoption=Adoption(AdoptionScope.NONE, idle_seconds=900),
            checkpoint_directory="checkpoints",
            format=Format.AUTO,
            level=Level.FULL,
            timeout_seconds=60,
            resume=True,
            from_step=None,
            on_no_valid_checkpoint=OnNoValidCheckpoint.FAIL,
            wandb_run_id=None,
        )
        self._prepares += 1
        self.report = prepare(Volume(str(self.root)), request, settle_seconds=0)
        assert self.report.outcome is not Outcome.BLOCKED, self.report.message
        return self.report

    def claim(self, epoch: int) -> None:
        """A later claim alone: what a pod of an older epoch sees first of the attempt that follows."""
        record = Claim(epoch=epoch, run_id=RUN_ID, owner=OWNER, prepare=self._prepares, time=0.0)
        assert self.volume.publish(self.layout.claim(epoch), dump(record.to_dict()))

    def commit(self, step: int) -> Path:
        """A checkpoint of our own format, committed by the current epoch."""
        directory = self.checkpoints / step_name(step, self.epoch)
        directory.mkdir(parents=True)
        data = f"weights of step {step}".encode()
        hasher = ChunkHasher(preferred_algorithm())
        hasher.update(memoryview(data))
        files = (ManifestFile("model.pt", len(data), tuple(hasher.finish())),)
        manifest = Manifest(RUN_ID, self.epoch, step, 1, preferred_algorithm(), files, resumable=True)
        (directory / "model.pt").write_bytes(data)
        (directory / MANIFEST).write_bytes(manifest.encode())
        return directory

    def save(self, step: int) -> Path:
        """A file as torch.save lays it out."""
        self.checkpoints.mkdir(exist_ok=True)
        path = self.checkpoints / f"step-{step}.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
            archive.writestr("archive/version", b"3\n")
        return path

    def start_record(self, slot: str = "master-0") -> StartRecord | None:
        return read_record(self.volume, self.layout.start(self.epoch, slot), StartRecord.from_value)

    def end_record(self, slot: str = "master-0") -> EndRecord | None:
        return read_record(self.volume, self.layout.end(self.epoch, slot), EndRecord.from_value)

    def end(self, slot: str) -> None:
        """The end of a peer that this test does not run."""
        record = EndRecord(self.epoch, slot, f"uid-{slot}", 0, False, False, None, None, 0.0)
        self.volume.make_directories(f"epochs/{self.epoch}")
        assert self.volume.publish(self.layout.end(self.epoch, slot), dump(record.to_dict()))

    def environment(self, **changes: Any) -> RunEnvironment:
        """What the operator tells the pods of the attempt that the last prepare decided."""
        base = self.report.checkpoint
        values: dict[str, Any] = {
            "run_id": RUN_ID,
            "sweep_name": SWEEP,
            "run_dir": str(self.path),
            "checkpoint_dir": str(self.checkpoints),
            "config_file": str(self.path / "train_config_overrides.yaml"),
            "epoch": self.epoch,
            "attempt": self._prepares - 1,
            "slots": list(self.slots),
            "grace_seconds": 4,
            "resume_from": str(self.path / base.path) if base else None,
            "resume_step": base.step if base else None,
            "resume_epoch": base.epoch if base else None,
            "resume_digest": base.digest if base else None,
            "resume_format": str(base.format) if base else None,
            "resume_args": "",
        }
        return RunEnvironment(**{**values, **changes})
