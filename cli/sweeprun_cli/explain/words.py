"""All words and where each is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sweeprun_operator.api.status import Cause
from sweeprun_operator.core.classify import KINDS as KIND_OF

from .causes import CAUSES, KINDS, OUTCOMES, START_REASONS
from .conditions import ACCEPTANCE, CONDITIONS, STATES
from .entry import Entry
from .exit_codes import COMMAND, CONTAINER, by_signal
from .refusals import BLOCKED, REFUSALS


@dataclass(frozen=True, slots=True)
class Family:
    title: str
    """What a word of it is."""
    entries: Mapping[str, Entry]


FAMILIES: tuple[Family, ...] = (
    Family("cause of an attempt's end", {str(word): entry for word, entry in CAUSES.items()}),
    Family("kind of an attempt's end", {str(word): entry for word, entry in KINDS.items()}),
    Family("reason of a condition", CONDITIONS),
    Family(
        "reason of the condition Accepted, or of a warning", {str(word): entry for word, entry in ACCEPTANCE.items()}
    ),
    Family("state; reason of the condition Running", {str(word): entry for word, entry in STATES.items()}),
    Family("reason of the conditions Stuck and Failed", {str(word): entry for word, entry in BLOCKED.items()}),
    Family("what prepare decided", {str(word): entry for word, entry in OUTCOMES.items()}),
    Family("why an attempt begins where it does", {str(word): entry for word, entry in START_REASONS.items()}),
    Family("why a checkpoint was refused", {str(word): entry for word, entry in REFUSALS.items()}),
    Family("exit code of a training container", {str(int(code)): entry for code, entry in CONTAINER.items()}),
    Family("exit code of the command sweeprun", {str(int(code)): entry for code, entry in COMMAND.items()}),
)


def entries(word: str) -> Iterator[tuple[str, str, Entry]]:
    """Every meaning of the word, whatever its case: family, the word as it is written, text."""
    for family in FAMILIES:
        for known, entry in family.entries.items():
            if known.lower() == word.lower():
                yield family.title, known, entry
    if word.isascii() and word.isdigit() and len(word) <= 3:
        found = by_signal(int(word))
        if found is not None:
            yield "exit code of any container", word, found


def words() -> list[str]:
    return sorted({word for family in FAMILIES for word in family.entries}, key=lambda word: (word.isdigit(), word))


def counts_as(word: str) -> str | None:
    """The kind of a cause."""
    return str(KIND_OF[Cause(word)]) if word in CAUSES else None


def advice_for(reason: str) -> Entry | None:
    """Of a condition's reason."""
    for family in FAMILIES[2:6]:
        if reason in family.entries:
            return family.entries[reason]
    return None
