"""What `data.pkl` of a torch.save file tells of the object that was saved, by its tokens: nothing is unpickled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Optional

from sweeprun_protocol.layout import MAX_STEP

from .pickle_machine import tokenise
from .pickle_tokens import DICT, FIRST, Global, Limits, PickleError, Value, items_of

MAX_PICKLE_BYTES = 4 << 20
"""A larger one, of more than 35,000 tensors, is not looked into. Measured: 45 us and 700 bytes of memory a tensor."""
_LIMITS = Limits(bytes=MAX_PICKLE_BYTES, parts=1 << 20, stack=1 << 17)

MAX_PAIRS = 1000
"""Of a mapping that are searched for the step: one mapping may be the value of many keys."""
STEP_KEYS = ("step", "global_step", "epoch")
_REBUILDERS = frozenset({"torch._utils", "torch._tensor"})


def look_into(data: bytes) -> Optional[Value]:
    """What was saved, as tokens; None in doubt: damaged, too large, or with opcodes that torch.save does not write."""
    try:
        return tokenise(data, limits=_LIMITS)
    except PickleError:
        return None


def pairs_in(value: Value) -> Optional[Iterator[tuple[Value, Value]]]:
    """Keys and values of a dict or an OrderedDict; None where it is none."""
    if type(value) is not list or not (value[0] is DICT or _names(value[0], "collections", "OrderedDict")):
        return None
    rest = iter(value[FIRST:])
    return zip(rest, rest)


def text_keys(value: Value) -> frozenset[str]:
    """Of a mapping; empty where it is none."""
    return frozenset(key for key, _ in pairs_in(value) or () if type(key) is str)


def holds_weights_only(top: Value) -> bool:
    """A tensor, a list of tensors, or a mapping of nothing but tensors, none of which is named as the step is."""
    if _is_tensor(top):
        return True
    pairs = list(pairs_in(top) or ())
    if any(type(key) is str and key in STEP_KEYS for key, _ in pairs):
        return False
    values = [value for _, value in pairs] or items_of(top) or (top if type(top) is tuple else ())
    return len(values) > 0 and all(map(_is_tensor, values))


def step_in(top: Value) -> Optional[int]:
    """The integer under a key that names the step: of the mapping that was saved, else of one directly inside it."""
    pairs = list(islice(pairs_in(top) or (), MAX_PAIRS))
    for mapping in (pairs, *(pairs_in(value) or () for _, value in pairs)):
        steps = _integers(islice(mapping, MAX_PAIRS))
        for key in STEP_KEYS:
            if key in steps:
                return steps[key]
    return None


def integer_at(top: Value, key: str) -> Optional[int]:
    """Of the mapping that was saved."""
    return _integers(pairs_in(top) or ()).get(key)


def _integers(pairs: Iterable[tuple[Value, Value]]) -> dict[str, int]:
    """Those that could be a step; a truth value is none."""
    return {key: value for key, value in pairs if type(key) is str and type(value) is int and 0 <= value <= MAX_STEP}


def _is_tensor(value: Value) -> bool:
    """Parameters, buffers and subclasses are rebuilt by functions of the same two modules."""
    if type(value) is not list or type(value[0]) is not Global:
        return False
    return value[0].module in _REBUILDERS and value[0].name.startswith("_rebuild_")


def _names(value: Value, module: str, name: str) -> bool:
    return type(value) is Global and value.module == module and value.name == name
