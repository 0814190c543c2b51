"""The own checkpoint format: a directory whose `manifest.json`, written last, names every byte of it.

Every file is hashed in chunks of CHUNK bytes, so that checks run in parallel, stop early and say where the damage is.
The checkpoint's digest is SHA-256 over the exact bytes of the manifest, which names the digest of every chunk; it is
kept off the volume too. Chunk hashes stop accidents, not people: whoever can change a file can change the manifest.
"""

from __future__ import annotations

import hashlib
from typing import Any, Optional

from .codec import Fields, as_dicts, dump, parse, plain
from .frozen import dataclass
from .layout import MAX_EPOCH, MAX_STEP
from .records import read_relative, read_run_id

VERSION = 1
CHUNK = 64 << 20
"""Bytes per hashed chunk; only the last chunk of a file is shorter."""

MAX_MANIFEST_BYTES = 64 << 20
MAX_FILES = 65_536
MAX_FILE_BYTES = 1 << 50

XXH3_128 = "xxh3-128"
BLAKE2B_128 = "blake2b-128"
"""Standard library, for images without xxhash (0.7 GB/s against 14 GB/s, measured on one core)."""

ALGORITHMS = (XXH3_128, BLAKE2B_128)


@dataclass(frozen=True)
class ManifestFile:
    path: str
    """Relative to the checkpoint directory."""
    size: int
    """Bytes."""
    chunks: tuple[str, ...]
    """32 hex digits for each chunk, in order; empty for an empty file."""

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "size": self.size, "chunks": list(self.chunks)}

    @staticmethod
    def from_value(value: Any, where: str) -> ManifestFile:
        fields = Fields(value, where)
        size = fields.integer("size", most=MAX_FILE_BYTES)
        expected = -(-size // CHUNK)
        chunks = fields.texts("chunks", most=max(expected, 1), longest=32)
        if len(chunks) != expected or any(len(chunk) != 32 for chunk in chunks):
            fields.fail("chunks", f"does not hold the {expected} chunk digests that {size} bytes need")
        return ManifestFile(path=read_relative(fields, "path"), size=size, chunks=tuple(chunks))


@dataclass(frozen=True)
class Manifest:
    run_id: str
    epoch: int
    step: int
    world_size: int
    algorithm: str
    files: tuple[ManifestFile, ...]
    resumable: bool
    """False: loadable (weights), but not enough to go on exactly."""
    config_digest: Optional[str] = None
    parent_step: Optional[int] = None
    wandb_step: Optional[int] = None
    save_seconds: Optional[float] = None
    torch_version: Optional[str] = None
    time: float = 0.0

    def encode(self) -> bytes:
        return dump(
            plain(
                {
                    "version": VERSION,
                    "runId": self.run_id,
                    "epoch": self.epoch,
                    "step": self.step,
                    "worldSize": self.world_size,
                    "algorithm": self.algorithm,
                    "chunkBytes": CHUNK,
                    "files": as_dicts(self.files),
                    "resumable": self.resumable,
                    "configDigest": self.config_digest,
                    "parentStep": self.parent_step,
                    "wandbStep": self.wandb_step,
                    "saveSeconds": self.save_seconds,
                    "torchVersion": self.torch_version,
                    "time": self.time,
                }
            )
        )

    @staticmethod
    def decode(data: bytes, *, where: str) -> Manifest:
        """Raises RecordError where the bytes are no manifest of this version, or name a file twice."""
        fields = Fields(parse(data, where=where, limit=MAX_MANIFEST_BYTES), where)
        if fields.integer("version") != VERSION:
            fields.fail("version", f"is not {VERSION}: written by another version of SweepRun")
        if fields.integer("chunkBytes") != CHUNK:
            fields.fail("chunkBytes", f"is not {CHUNK}")
        algorithm, files = read_algorithm(fields, "algorithm"), read_files(fields)
        return Manifest(
            run_id=read_run_id(fields, "runId"),
            epoch=fields.integer("epoch", least=1, most=MAX_EPOCH),
            step=fields.integer("step", most=MAX_STEP),
            world_size=fields.integer("worldSize", least=1, most=1 << 20),
            algorithm=algorithm,
            files=files,
            resumable=fields.flag("resumable"),
            config_digest=fields.optional("configDigest", lambda name: fields.text(name, most=80)),
            parent_step=fields.optional("parentStep", lambda name: fields.integer(name, most=MAX_STEP)),
            wandb_step=fields.optional("wandbStep", lambda name: fields.integer(name, most=MAX_STEP)),
            save_seconds=fields.optional("saveSeconds", fields.number),
            torch_version=fields.optional("torchVersion", lambda name: fields.text(name, most=64)),
            time=fields.number("time"),
        )


def read_algorithm(fields: Fields, name: str) -> str:
    algorithm = fields.text(name, most=32)
    if algorithm not in ALGORITHMS:
        fields.fail(name, f"is none of {', '.join(ALGORITHMS)}")
    return algorithm


def read_files(fields: Fields) -> tuple[ManifestFile, ...]:
    files = tuple(fields.records("files", ManifestFile.from_value, most=MAX_FILES))
    if len({file.path for file in files}) != len(files):
        fields.fail("files", "names a file twice")
    return files


def digest_of(data: bytes) -> str:
    """Digest of a manifest or of a configuration file: `sha256:<hex>` over its exact bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
