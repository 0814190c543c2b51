"""Reading of raw objects: whatever has another shape than expected reads as absent, and every text is cut."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from .gateway import Raw

MESSAGE_CHARACTERS = 512
WORD_CHARACTERS = 128


def sub(raw: Any, *path: str) -> Raw:
    """The object at `path`, or an empty one."""
    value = raw
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def items(raw: Raw, name: str) -> Iterator[Raw]:
    """The objects of a list, without anything else that stands in it."""
    value = raw.get(name)
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def text(raw: Raw, name: str, *, most: int = MESSAGE_CHARACTERS) -> str | None:
    value = raw.get(name)
    if not isinstance(value, str) or not value:
        return None
    # what a pod says is shown in terminals: no control sequences, and no half of a surrogate pair
    value = value[:most]
    if value.isprintable():
        return value
    return "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in value)


def end_of_text(raw: Raw, name: str, *, most: int = MESSAGE_CHARACTERS) -> str | None:
    """The last characters: of a log's tail they hold the error itself."""
    value = raw.get(name)
    return text({name: value[-most:]}, name, most=most) if isinstance(value, str) else None


def word(raw: Raw, name: str) -> str | None:
    return text(raw, name, most=WORD_CHARACTERS)


def number(raw: Raw, name: str) -> int | None:
    """That fits into 32 bits, as all numbers of Kubernetes that are read here."""
    value = raw.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31 else None


def digits(raw: Raw, name: str) -> int | None:
    """A whole number in a label: at most nine digits."""
    value = raw.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        return int(value)
    return None


def moment(raw: Raw, name: str) -> datetime | None:
    """An RFC 3339 time with its zone."""
    value = raw.get(name)
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo is not None else None


def condition(status: Raw, kind: str) -> Raw | None:
    return next((item for item in items(status, "conditions") if item.get("type") == kind), None)


def true_condition(status: Raw, kind: str) -> Raw | None:
    found = condition(status, kind)
    return found if found is not None and found.get("status") == "True" else None


def uid_of(raw: Raw) -> str:
    return text(sub(raw, "metadata"), "uid", most=WORD_CHARACTERS) or ""


def name_of(raw: Raw) -> str:
    return text(sub(raw, "metadata"), "name", most=253) or ""


def labels_of(raw: Raw) -> Raw:
    return sub(raw, "metadata", "labels")


def deleting(raw: Raw) -> bool:
    return bool(sub(raw, "metadata").get("deletionTimestamp"))


def controlled_by(raw: Raw, owner_uid: str) -> bool:
    """The object's controller is the owner with this UID."""
    references = items(sub(raw, "metadata"), "ownerReferences")
    return any(item.get("controller") is True and item.get("uid") == owner_uid for item in references)
