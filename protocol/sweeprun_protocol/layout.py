"""Where everything of a run lies below its run directory: format and strict parse, no IO.

All paths are relative POSIX paths; `RunLayout` joins them to a run directory. DESIGN of the layout: docs/protocol.md.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import Optional

from .frozen import dataclass
from .reasons import Format, Level, VerdictKind

MAX_EPOCH = 999_999
MAX_STEP = 999_999_999_999

MARKER = ".incomplete"
RESULT = "result.json"
SUPERSEDED_BY = "superseded-by.json"
CLAIMS = "claims"
EPOCHS = "epochs"
QUARANTINE = "quarantine"
ABANDONED = "abandoned"
TRASH = ".sweeprun-trash"
"""What prepare is about to delete: renamed into it first, so that nothing is ever half deleted under its own name."""

VERDICTS = "verdicts"
WANDB = "wandb"
MANIFEST = "manifest.json"
CURVE = "metrics.jsonl"
RUN_RECORD = "run.json"
"""Written once with the configuration: which configuration file, its digest, the W&B run, the volume's ID."""

VOLUME_RECORD = ".sweeprun-volume.json"
"""At the root of the volume (below subPath): the volume's own ID, published once by the first prepare."""

INITS = ".sweeprun-inits"
"""At the root of the volume: staging directories of sweep_init, and the records that publish one of them."""

EPOCH_PLACEHOLDER = "{epoch}"

_CLAIM = re.compile(r"^([0-9]{6})\.json$")
_STEP = re.compile(r"^step-([0-9]{9,12})\.e([0-9]{1,6})$")
_STAGING = re.compile(r"^\.staging-[0-9]{1,12}-e([0-9]{1,6})-[0-9a-z]{1,32}$")
_START = re.compile(r"^start-([a-z]{1,16}-[0-9]{1,4})\.json$")
_END = re.compile(r"^end-([a-z]{1,16}-[0-9]{1,4})\.json$")
_WANDB = re.compile(r"^e([1-9][0-9]{0,5})$")
_VERDICT = re.compile(r"^([0-9a-f]{32})\.e([1-9][0-9]{0,5})\.(Full|Fast)\.(first|whole|refused)\.json$")


def claim_name(epoch: int) -> str:
    return f"{epoch:06d}.json"


def parse_claim_name(name: str) -> Optional[int]:
    match = _CLAIM.fullmatch(name)
    return int(match.group(1)) if match else None


def step_name(step: int, epoch: int) -> str:
    """Directory of the library's checkpoint of `step`, committed in `epoch`."""
    return f"step-{step:09d}.e{epoch}"


def parse_step_name(name: str) -> Optional[tuple[int, int]]:
    """(step, epoch), or None where the name is not exactly that of a committed checkpoint."""
    match = _STEP.fullmatch(name)
    return (int(match.group(1)), int(match.group(2))) if match else None


def staging_name(step: int, epoch: int, unique: str) -> str:
    """Beside the final directory, hidden, and no `step-` prefix: no loader's pattern may match it."""
    return f".staging-{step}-e{epoch}-{unique}"


def parse_staging_name(name: str) -> Optional[int]:
    """Epoch of a staging directory; None where the name is not that of one."""
    match = _STAGING.fullmatch(name)
    return int(match.group(1)) if match else None


def parse_start_name(name: str) -> Optional[str]:
    match = _START.fullmatch(name)
    return match.group(1) if match else None


def parse_wandb_name(name: str) -> Optional[int]:
    """Epoch of a directory below WANDB; None where the name is not that of one."""
    match = _WANDB.fullmatch(name)
    return int(match.group(1)) if match else None


def parse_end_name(name: str) -> Optional[str]:
    match = _END.fullmatch(name)
    return match.group(1) if match else None


@dataclass(frozen=True)
class VerdictName:
    """Of a record in VERDICTS: what was judged, by the prepare of which epoch, how closely, and what it found."""

    key: str
    """As verdict_key gives it."""
    epoch: int
    level: Level
    kind: VerdictKind

    def __str__(self) -> str:
        return f"{self.key}.e{self.epoch}.{self.level}.{self.kind}.json"


def parse_verdict_name(name: str) -> Optional[VerdictName]:
    match = _VERDICT.fullmatch(name)
    if match is None:
        return None
    key, epoch, level, kind = match.groups()
    return VerdictName(key, int(epoch), Level(level), VerdictKind(kind))


def verdict_key(kind: Format, path: str, *, size: int, mtime_ns: int) -> str:
    """One state of one checkpoint as 32 hex digits: what is written anew has another size or time, so another key."""
    told = b"\0".join((str(kind).encode(), path.encode("utf-8", "surrogatepass"), b"%d" % size, b"%d" % mtime_ns))
    return hashlib.sha256(told).hexdigest()[:32]


def expand_run_directory(template: str, *, sweep_name: str, run_id: str) -> str:
    """`sweep/{sweepName}/runs/{runId}` -> the run directory, relative to the mounted root.

    Raises:
        ValueError: the template leaves the root, is absolute, or does not end with `{runId}`.
    """
    check_run_directory(template)
    return template.replace("{sweepName}", sweep_name).replace("{runId}", run_id)


def check_run_directory(template: str) -> None:
    """Raises ValueError where the template could not keep two runs apart or leaves the volume."""
    if not template.endswith("/{runId}") or template.count("{runId}") != 1:
        raise ValueError("runDirectory must end with /{runId}, the directory of one run")
    rest = template.replace("{sweepName}", "s").replace("{runId}", "r")
    if "{" in rest or "}" in rest:
        raise ValueError("runDirectory may hold {sweepName} and {runId} only")
    check_relative(rest, what="runDirectory")


def check_relative(path: str, *, what: str) -> None:
    """Raises ValueError unless `path` is relative, normal and stays below its start."""
    if not path or path.startswith("/") or "\\" in path or "\x00" in path:
        raise ValueError(f"{what} must be a relative path")
    if posixpath.normpath(path) != path or path.split("/")[0] == "..":
        raise ValueError(f"{what} must be a normal path without . or .. parts")


@dataclass(frozen=True)
class RunLayout:
    """Paths of one run. `directory` is the run directory as seen by the reader (absolute, or relative to the root)."""

    directory: str

    def _join(self, *parts: str) -> str:
        return posixpath.join(self.directory, *parts)

    @property
    def marker(self) -> str:
        return self._join(MARKER)

    @property
    def result(self) -> str:
        return self._join(RESULT)

    @property
    def run_record(self) -> str:
        return self._join(RUN_RECORD)

    @property
    def superseded_by(self) -> str:
        return self._join(SUPERSEDED_BY)

    @property
    def claims(self) -> str:
        return self._join(CLAIMS)

    def claim(self, epoch: int) -> str:
        return self._join(CLAIMS, claim_name(epoch))

    def epoch(self, epoch: int) -> str:
        return self._join(EPOCHS, str(epoch))

    def decision(self, epoch: int) -> str:
        return self._join(EPOCHS, str(epoch), "decision.json")

    def start(self, epoch: int, slot: str) -> str:
        return self._join(EPOCHS, str(epoch), f"start-{slot}.json")

    def end(self, epoch: int, slot: str) -> str:
        return self._join(EPOCHS, str(epoch), f"end-{slot}.json")

    def completion(self, epoch: int) -> str:
        """Published by all ranks together through the library's complete()."""
        return self._join(EPOCHS, str(epoch), "complete.json")

    def library(self, epoch: int) -> str:
        """Published when training code initialised the library: from then on only complete() completes."""
        return self._join(EPOCHS, str(epoch), "library.json")

    def curve(self, epoch: int) -> str:
        """Metrics over steps that the library keeps for people: nothing is decided by it."""
        return self._join(EPOCHS, str(epoch), CURVE)

    def copies(self, epoch: int) -> str:
        """Where the prepare of epoch `epoch` copies its resume point to, out of reach of who writes in the old path."""
        return self._join(EPOCHS, str(epoch), "resume")

    def wandb(self, epoch: int) -> str:
        """WANDB_DIR of what an attempt could not or must not send to W&B: one for each epoch, so that what is
        synchronised later never mixes the files of two attempts."""
        return self._join(WANDB, f"e{epoch}")

    def checkpoints(self, directory: str, epoch: int) -> str:
        """Where epoch `epoch` writes: `directory` below the run directory, `{epoch}` in it expanded."""
        return self._join(directory.replace(EPOCH_PLACEHOLDER, str(epoch)))

    @property
    def verdicts(self) -> str:
        return self._join(VERDICTS)

    def verdict(self, name: VerdictName) -> str:
        return self._join(VERDICTS, str(name))

    @property
    def quarantine(self) -> str:
        return self._join(QUARANTINE)

    @property
    def abandoned(self) -> str:
        return self._join(ABANDONED)

    @property
    def trash(self) -> str:
        return self._join(TRASH)


def split(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
