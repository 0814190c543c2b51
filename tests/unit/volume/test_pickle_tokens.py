"""Pickles read as data: what pickle.dump writes is told, nothing of it is done, and no bytes cost more than allowed."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import random
import time
import tracemalloc
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sweeprun_volume.formats import pickle_machine, pickle_memo
from sweeprun_volume.formats.pickle_machine import tokenise, tokenise_in_portions
from sweeprun_volume.formats.pickle_memo import Held
from sweeprun_volume.formats.pickle_tokens import (
    BYTEARRAY,
    DICT,
    FIRST,
    FROZENSET,
    KEYWORDS,
    LIST,
    PERSISTENT,
    SET,
    EndsEarlyError,
    Global,
    Limits,
    PickleError,
    TooLargeError,
    items_of,
    pairs_of,
)

PROTOCOLS = (2, 3, 4, 5)


def read(data, **limits):
    return tokenise(data, limits=Limits(**limits))


def plain(value):
    """Of what is told, the value itself."""
    if type(value) is tuple:
        return tuple(map(plain, value))
    if type(value) is not list:
        return value
    items = value[FIRST:]
    if value[0] is DICT:
        return {plain(key): plain(item) for key, item in pairs_of(value)}
    if value[0] is BYTEARRAY:
        return bytearray(value[1])
    if isinstance(value[0], Global):  # protocol 2 has no opcode for bytes and sets
        return {"encode": _encoded, "bytearray": bytearray, "bytes": bytes, "set": set, "frozenset": frozenset}[
            value[0].name
        ](*map(plain, value[1]))
    return {LIST: list, SET: set, FROZENSET: frozenset}[value[0]](map(plain, items))


def _encoded(text, encoding):
    return text.encode(encoding)


SIMPLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
VALUES = st.recursive(
    SIMPLE | st.binary().map(bytearray) | st.sets(st.integers()) | st.frozensets(st.text()),
    lambda inner: st.lists(inner) | st.dictionaries(SIMPLE, inner) | st.lists(inner).map(tuple),
    max_leaves=25,
)


@settings(deadline=None)
@given(VALUES, st.sampled_from(PROTOCOLS))
@example("x" * 300 + "\ud800", 4)
@example([list(range(3000)), {n: str(n) for n in range(3000)}, tuple(range(70_000))], 4)
@example([b"x" * 70_000, "y" * 70_000, bytearray(70_000)], 5)
def test_what_is_written_is_read(value, protocol):
    assert plain(read(pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_asked_for_again_after_many_parts_is_told(protocol):
    parts = [(str(number), [number]) for number in range(2000)]
    value = {"first": parts, "again": parts[::-1]}
    told = read(pickle.dumps(value, protocol))
    assert plain(told) == value
    first, again = (items_of(item) for _, item in pairs_of(told))
    assert [id(part) for part in again] == [id(part) for part in first[::-1]]


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(pickle_memo, "WINDOW", 50)
    monkeypatch.setattr(pickle_machine, "SEGMENT", 70)
    monkeypatch.setattr(pickle_machine, "MARGIN", pickle_machine.MAX_NAME + 300)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("length", [10, 1000, 1390, 1400, 1410, 10_000])
def test_a_text_may_end_in_any_window(length, protocol):
    value = [["j" * 300, "x" * length, b"y" * length, number, Point] for number in range(400)]
    value += value[:50]
    assert repr(read(pickle.dumps(value, protocol))) == repr(tokens_in_one_window(value, protocol))


def tokens_in_one_window(value, protocol):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickle_memo, "WINDOW", 1 << 30)
        patch.setattr(pickle_machine, "SEGMENT", 1 << 30)
        return read(pickle.dumps(value, protocol))


@dataclass
class Point:
    x: int
    y: object


class Named:
    def __new__(cls, *, name):
        made = super().__new__(cls)
        made.name = name
        return made

    def __getnewargs_ex__(self):
        return (), {"name": self.name}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_is_told_by_its_class_arguments_and_state(protocol):
    made = read(pickle.dumps(Point(1, [2]), protocol))
    assert (made[0].module, made[0].name, made[1]) == (__name__, "Point", ())
    assert dict(pairs_of(made[2])) == {"x": 1, "y": [LIST, None, None, 2]}


@pytest.mark.parametrize("protocol", [4, 5])
def test_an_object_made_by_keywords_is_told(protocol):
    (tag, called, keywords), arguments, _ = read(pickle.dumps(Named(name="a"), protocol))
    assert (tag, called.name, dict(pairs_of(keywords)), arguments) == (KEYWORDS, "Named", {"name": "a"}, ())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_items_of_objects_that_hold_some_follow_their_state(protocol):
    ordered = read(pickle.dumps(collections.OrderedDict(a=1, b=2), protocol))
    assert (ordered[0].name, ordered[FIRST:]) == ("OrderedDict", ["a", 1, "b", 2])
    assert read(pickle.dumps(collections.deque([1, 2]), protocol))[FIRST:] == [1, 2]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_parts_that_are_shared_or_hold_themselves_are_told_once(protocol):
    shared = [1]
    value = read(pickle.dumps([shared, shared], protocol))
    first, second = items_of(value)
    assert first is second
    loop = []
    loop.append((loop,))
    told = read(pickle.dumps(loop, protocol))
    assert told[FIRST][0] is told


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_persistent_id_is_told(protocol):
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol)
    pickler.persistent_id = lambda item: ("storage", "0") if item is ... else None
    pickler.dump([...])
    assert items_of(read(stream.getvalue())) == [[PERSISTENT, ("storage", "0"), None]]


def test_what_is_no_list_or_dict_has_no_items():
    assert items_of(read(pickle.dumps({}))) is None
    assert pairs_of(read(pickle.dumps([]))) is None
    assert items_of("text") is None


# -- in portions -------------------------------------------------------------------------------------------------------


class Taker:
    def __init__(self):
        self.taken = {}

    def take(self, name, holder, items):
        pairs, first = self.taken.setdefault(name, ([], holder))
        assert first is holder
        pairs += zip(items[::2], items[1::2], strict=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("count", [0, 1, 2, 1000, 1001, 3500])
def test_items_of_the_outermost_dicts_come_in_portions_and_all_of_them(protocol, count):
    items = {f"key {number}": Point(number, {"inner": {number: [number]}}) for number in range(count)}
    value = Point({"not": {"outermost": 1, "either": 2}, "nor": 3}, {**items})
    value.more = {key: key for key in items}
    taker = Taker()
    told = tokenise_in_portions(Held(pickle.dumps(value, protocol)), taker.take, limits=Limits())
    state = dict(pairs_of(told[2]))
    assert set(taker.taken) == {"x"} | ({"y", "more"} if count else set())
    for name, (pairs, holder) in taker.taken.items():
        assert state[name] is holder
        assert not list(pairs_of(holder))
        assert len(pairs) == len(getattr(value, name))
    assert plain(taker.taken["x"][0][0][1]) == {"outermost": 1, "either": 2}
    if count:
        for (key, item), (again, same) in zip(taker.taken["y"][0], taker.taken["more"][0], strict=True):
            assert key is again is same
            assert plain_state(item) == {"x": items[key].x, "y": items[key].y}


def plain_state(item):
    return {key: plain(value) for key, value in pairs_of(item[2])}


def test_what_was_taken_leaves_no_trace_in_memory():
    """Twice the items, and little more memory: a byte for each of their parts."""
    peaks = []
    for count in (20_000, 40_000):
        data = pickle.dumps({"items": {number: Point([number], {"x": (number,)}) for number in range(count)}})
        tracemalloc.start()
        tokenise_in_portions(Held(data), lambda *_: None, limits=Limits())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < len(data) / 4


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_call_is_told_and_not_made(protocol, tmp_path):
    trap = str(tmp_path / "executed")
    data = pickle.dumps(Malicious(trap), protocol)
    called, arguments, _ = read(data)
    assert (called.name, arguments) == ("mkdir", (trap,))
    assert not os.path.exists(trap)
    pickle.loads(data)
    assert os.path.exists(trap), "it would have been seen"


def test_no_module_is_imported():
    data = b"\x80\x04cthis_module_is_nowhere\nand_this_neither\n."
    assert repr(read(data)) == "this_module_is_nowhere.and_this_neither"


RICH = {
    "numbers": [1, 300, 70_000, -5, 2**70, 1.5, True, None],
    "texts": ["ä" * 10, "x" * 300, b"y" * 300],
    "objects": [Point(1, (2, 3, 4)), Point(5, {6}), collections.OrderedDict(a=frozenset([7]))],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_cut_anywhere_ends_early(protocol):
    data = pickle.dumps(RICH, protocol)
    for size in range(len(data)):
        with pytest.raises(EndsEarlyError):
            read(data[:size])


WRONG = {
    "protocol 0": (pickle.dumps([1], 0), "opcode"),
    "a protocol of the future": (b"\x80\x06N.", "protocol 6"),
    "something behind it": (pickle.dumps(1) + b"N", "follows"),
    "nothing on the stack": (b"\x80\x04.", "ends with 0"),
    "two values": (b"\x80\x04NN.", "ends with 2"),
    "a mark that is open": (b"\x80\x04N(N.", "ends with"),
    "a memo of what was never there": (b"\x80\x04h\x05......... ", "not there"),
    "items for a number": (b"\x80\x04K\x01(K\x02e.", "items for what can have none"),
    "one item for a number": (b"\x80\x04K\x01K\x02a.", "items for what can have none"),
    "half a pair": (b"\x80\x04}(K\x02u.", "no pairs"),
    "pairs for a text": (b"\x80\x04\x8c\x01a(K\x02K\x03u.", "no pairs"),
    "a state for a number": (b"\x80\x04K\x01K\x02b.", "a state"),
    "two states": (b"\x80\x04)\x81K\x01bK\x02b.........", "not there"),
    "a class with a number for its name": (b"\x80\x04K\x01K\x02\x93.", "two texts"),
    "a text that is no UTF-8": (b"\x80\x04\x8c\x01\xff.........", "UTF-8"),
    "a buffer that lies elsewhere": (b"\x80\x05\x97.", "opcode"),
    "an extension code": (b"\x80\x04\x82\x01.", "opcode"),
    "a part that comes later": (
        b"\x80\x04N" + b"\x94" * 300 + b"j" + (350).to_bytes(4, "little") + b"\x94" * 100 + b"0.",
        "part 350 is asked for",
    ),
    "a number in the memo far ahead": (b"\x80\x02Nr\xff\xff\xff\x7f.........", "remembered"),
}


@pytest.mark.parametrize(("data", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_pickle_does_not_write_is_an_error_with_its_place(data, message):
    with pytest.raises(PickleError) as error:
        read(data)
    assert message in str(error.value)
    assert 0 <= error.value.offset <= len(data)


def test_an_object_has_one_state():
    with pytest.raises(PickleError, match="a state"):
        read(b"\x80\x04cm\nn\n)\x81K\x01bK\x02b.")


SHORT = pickle.dumps([1, 2])
TOO_LARGE = {
    "bytes": (SHORT, {"bytes": len(SHORT) - 1}),
    "containers": (b"\x80\x04(" + b"]" * 2000 + b"t.", {"parts": 1000}),
    "items": (b"\x80\x04](" + b"N" * 2000 + b"e.", {"parts": 1000}),
    "texts": (b"\x80\x04(" + b"\x8c\x02ab" * 2000 + b"t.", {"parts": 1000}),
    "what is remembered": (b"\x80\x04N" + b"\x94" * 2000 + b".", {"parts": 1000}),
    "marks": (b"\x80\x04" + b"(" * 900 + b"t" * 900 + b".", {"nesting": 500}),
    "what waits": (b"\x80\x04(" + b"N" * 2000 + b"t.", {"stack": 1000}),
    "a number that nobody could print": (b"\x80\x04\x8b" + (2000).to_bytes(4, "little") + b"\x7f" * 2000 + b".", {}),
    "a name": (b"\x80\x04c" + b"x" * 3000 + b"\ny\n.", {}),
}


@pytest.mark.parametrize(("data", "limits"), TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_what_exceeds_a_bound_is_too_large(data, limits, monkeypatch):
    monkeypatch.setattr(pickle_machine, "SEGMENT", 500)
    with pytest.raises(TooLargeError):
        read(data, **limits)
    if limits:
        read(data)


def test_the_time_is_looked_at_in_between():
    class OutOfTimeError(Exception):
        pass

    seen = []

    def beat():
        seen.append(1)
        if len(seen) == 3:
            raise OutOfTimeError

    data = pickle.dumps(list(range(1_000_000)))
    with pytest.raises(OutOfTimeError):
        read(data, beat=beat)


def test_a_tuple_of_shared_tuples_costs_no_more_than_its_bytes():
    began = time.process_time()
    doubled = b"".join(b"h" + bytes([number]) + b"\x86\x94" for number in range(60))
    value = read(b"\x80\x04)\x94" + doubled + b".")
    assert value[0][1] is value[1][1]
    assert time.process_time() - began < 2


def test_nesting_without_marks_is_no_danger():
    value = read(b"\x80\x04)" + b"\x85" * 300_000 + b".")
    assert len(value) == 1


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_value_or_an_error_of_ours(data):
    with contextlib.suppress(PickleError):
        read(b"\x80\x04" + data)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_changed_pickles_end_in_a_value_or_an_error_of_ours(protocol):
    data = pickle.dumps(RICH, protocol)
    rng = random.Random(protocol)
    for _ in range(3000):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        with contextlib.suppress(PickleError):
            read(bytes(changed))
