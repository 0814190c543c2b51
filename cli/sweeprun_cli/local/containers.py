"""What a container says -> the process that plays it on this machine. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeprun_operator.builders.pytorchjob import ZIPAPP
from sweeprun_protocol.prepare import REQUEST_ENV

from .store import Raw

WRAPPER = ("/bin/sh", "/sweeprun/run.sh")
IMAGE_EXAMPLES = "/opt/sweeprun/examples"
"""Where the example image keeps the scripts of examples/."""
TERMINATION_LOG = "/dev/termination-log"
TERMINATION_LOG_ENV = "SWEEPRUN_TERMINATION_LOG"
POD_ENV = "SWEEPRUN_LOCAL_POD"
"""Marks every process of a pod: the UID, by which left-over children are found."""

LOCAL_ENVIRON = {
    "PYTHONUNBUFFERED": "1",
    "SWEEPRUN_HOST": "127.0.0.1",
    "SWEEPRUN_SETTLE_SECONDS": "0",
    "SWEEPRUN_SAMPLE_SECONDS": "0.2",
}
"""Nothing is far away: no address but the loopback, no file system that shows late what was written."""

_PYTHON = re.compile(r"(?:/\S*/)?python(?:3(?:\.\d+)?)?")
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
_VERBATIM = frozenset({REQUEST_ENV})
"""The request holds the configuration's text, which is kept byte for byte."""
_ANSWERS = ("prepare", "finish-init")
_OF_A_POD = re.compile(r"SWEEPRUN_|PET_|(?:RANK|WORLD_SIZE|LOCAL_RANK|MASTER_ADDR|MASTER_PORT|WANDB_RUN_ID)$")


class UnplayableError(ValueError):
    """The container asks for something that this machine cannot play; says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where things of the image lie on this machine."""

    python: str
    paths: tuple[tuple[str, str], ...]
    """Absolute paths in containers and what they are here; the first that fits counts."""
    environ: Mapping[str, str]
    """What every process inherits."""
    directory: str
    """Working directory of containers that name none."""

    def path(self, text: str) -> str:
        for inside, here in self.paths:
            # A path begins where no other goes on and ends at a separator: /data is in --out=/data/x, not in /database.
            parts = re.split(rf"(?<![\w./-]){re.escape(inside)}(?![\w.-])", text)
            if len(parts) > 1:
                return here.join(parts)
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    name: str
    """The container's."""
    arguments: tuple[str, ...]
    environ: dict[str, str]
    directory: str
    last_lines_as_message: bool
    """terminationMessagePolicy: FallbackToLogsOnError."""


def inherited(environ: Mapping[str, str], *, python: str) -> dict[str, str]:
    """This process's environment without what belongs to a pod, with this interpreter's programs first on PATH."""
    kept = {name: value for name, value in environ.items() if not _OF_A_POD.match(name)}
    binaries = str(Path(python).parent)
    return {**kept, "PATH": os.pathsep.join(part for part in (binaries, kept.get("PATH", os.defpath)) if part)}


def program(pod: Raw, container: Raw, machine: Machine, *, extra: Mapping[str, str], message_file: str) -> Program:
    """`extra` is what the pod's network gives it: addresses and ports. Raises UnplayableError."""
    own = _environ(pod, container, machine)
    visible = {**own, **extra}
    words = [*container.get("command", []), *container.get("args", [])]
    if not container.get("command"):
        raise UnplayableError(
            f"container {container.get('name')} has no command: local mode has no images, so it cannot know what runs"
        )
    arguments = _arguments([_expanded(word, visible) for word in words], machine, message_file)
    return Program(
        name=str(container.get("name")),
        arguments=tuple(arguments),
        environ={
            **machine.environ,
            **{name: value if name in _VERBATIM else machine.path(value) for name, value in visible.items()},
            **LOCAL_ENVIRON,
            "OMP_NUM_THREADS": own.get("OMP_NUM_THREADS", "1"),
            TERMINATION_LOG_ENV: message_file,
            POD_ENV: pod["metadata"]["uid"],
        },
        directory=machine.path(container["workingDir"]) if container.get("workingDir") else machine.directory,
        last_lines_as_message=container.get("terminationMessagePolicy") == "FallbackToLogsOnError",
    )


def _arguments(words: list[str], machine: Machine, message_file: str) -> list[str]:
    words = [message_file if word == TERMINATION_LOG else machine.path(word) for word in words]
    if tuple(words[:2]) == WRAPPER:
        inner = words[2:]
        # -P: a module beside the script must not stand in for ours.
        return [machine.python, "-P", "-m", "sweeprun_trainer", "exec", "--", *_interpreted(inner, machine)]
    if words[1:] == [ZIPAPP, "check"]:
        return [machine.python, "-P", "-m", "sweeprun_trainer", "check"]
    words = _interpreted(words, machine)
    if words[1:3] == ["-m", "sweeprun_volume"] and words[3:4] and words[3] in _ANSWERS:
        # Given last, which is what counts: a local disk shows at once what was written.
        words += ["--report", message_file, "--settle-seconds", "0"]
    return words


def _interpreted(words: list[str], machine: Machine) -> list[str]:
    return [machine.python, *words[1:]] if words and _PYTHON.fullmatch(words[0]) else words


def _environ(pod: Raw, container: Raw, machine: Machine) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in container.get("env", []):
        name = str(item.get("name"))
        if "valueFrom" in item:
            value = _from_elsewhere(pod, name, item["valueFrom"], machine)
        else:
            value = _expanded(str(item.get("value", "")), found)
        if value is not None:
            found[name] = value
    return found


def _from_elsewhere(pod: Raw, name: str, source: Mapping[str, Any], machine: Machine) -> str | None:
    """The downward API; secrets and config maps are what the caller's environment holds under the same name."""
    if "fieldRef" in source:
        return _field(pod, str(source["fieldRef"].get("fieldPath")))
    if name in machine.environ:
        return None  # inherited
    for kind in ("secretKeyRef", "configMapKeyRef"):
        if kind in source and source[kind].get("optional"):
            return None
    raise UnplayableError(f"{name} comes from {', '.join(source)}, which local mode has not: set it in the environment")


def _field(pod: Raw, path: str) -> str:
    metadata, spec = pod["metadata"], pod.get("spec", {})
    match = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if match is not None:
        return str(metadata.get(match.group(1), {}).get(match.group(2), ""))
    simple = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": "127.0.0.1",
        "status.hostIP": "127.0.0.1",
    }
    if path not in simple:
        raise UnplayableError(f"fieldPath {path} is not known to local mode")
    return str(simple[path])


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    """$(NAME) as Kubernetes does it: unknown names stay, $$ is a dollar sign."""

    def replaced(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return environ.get(match.group(1), match.group(0))

    return _REFERENCE.sub(replaced, text)
