"""Blocks and commands of README.md, its neighbours and docs/, as readers copy them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    document: Path
    number: int
    """From 1, in the order of the document."""
    language: str
    title: str | None
    text: str

    @property
    def where(self) -> str:
        return f"{self.document.relative_to(ROOT)}, block {self.number}"


class Proof(StrEnum):
    """What shows that a documented command works."""

    MAKE = "the target exists and make can say what it would do"
    PACKAGE = "the extras that pip is asked for exist"
    SHELL = "it is run, and names the kubeconfig and the programs of the test cluster"
    COMPLETION = "tests/integration/cli/test_completion.py runs it in a home of its own"
    CLUSTER = "it is run against a real API server with a SweepRun in it"
    LOCAL = "it is run in a directory with the files that the document shows"


_PROOFS = [
    (r"make( [a-z0-9-]+)+", Proof.MAKE),
    (r"pip install .*", Proof.PACKAGE),
    (r'eval "\$\(hack/cluster\.sh env\)"', Proof.SHELL),
    (r"sweeprun --install-completion", Proof.COMPLETION),
    (r"sweeprun (local |inspect \S*/).*", Proof.LOCAL),
    (r"(\w+=\$\(|sed \S+ \S+ \| )?(kubectl|helm|sweeprun) .*", Proof.CLUSTER),
]


@dataclass(frozen=True)
class Command:
    block: Block
    text: str

    @property
    def proof(self) -> Proof | None:
        """The first that fits; None: nothing shows that this command works, and it must not stand there."""
        return next((proof for pattern, proof in _PROOFS if re.fullmatch(pattern, self.text)), None)

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


def blocks(*documents: Path) -> Iterator[Block]:
    """Of these documents, or of all."""
    for document in documents or DOCUMENTS:
        for number, (information, text) in enumerate(_FENCE.findall(document.read_text()), 1):
            title = _TITLE.search(information)
            yield Block(document, number, information.split(" ")[0], title.group(1) if title else None, text)


def commands(*documents: Path) -> Iterator[Command]:
    """Of the `sh` blocks: a line each, unless a backslash joins it with the next one."""
    for block in blocks(*documents):
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                text = re.sub(r"\s+#\s.*$", "", line).strip()
                if text and not text.startswith("#"):
                    yield Command(block, " ".join(text.split()))
