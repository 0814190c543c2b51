"""The flag is raised at the moment of the signal, whatever the main thread waits for."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
import time

import pytest

from sweeprun_trainer.stop import MOST_CALLS, StopFlag, StopTogether


@pytest.fixture
def flag():
    before = signal.getsignal(signal.SIGTERM)
    flag = StopFlag()
    flag.install()
    yield flag
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, before)


def test_no_signal_no_flag(flag):
    assert not flag.is_set
    assert flag.seconds == 0


def test_a_signal_raises_it(flag):
    os.kill(os.getpid(), signal.SIGTERM)
    assert flag.is_set


def test_it_is_raised_while_the_main_thread_is_in_foreign_code(flag):
    """As in a collective: no Python handler runs there. The hash stands for it; it lets other threads run."""
    seen = []

    def watch():
        os.kill(os.getpid(), signal.SIGTERM)
        while not flag.is_set:
            time.sleep(0.001)
        seen.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 4_000_000)
    left = time.monotonic()
    watcher.join(timeout=10)
    assert seen, "the flag was never raised"
    assert seen[0] < left, "the flag was raised after the foreign code only"


def test_an_event_loop_keeps_its_wake_up_descriptor():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        flag = StopFlag()
        flag.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.is_set
        assert signal.set_wakeup_fd(writer) == writer
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, handler)
        os.close(reader)
        os.close(writer)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_worker_ends_by_a_signal_and_stops_nobody_else(flag):
    """DataLoader and multiprocessing end their workers so."""
    reader, writer = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.write(writer, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    os.kill(worker, signal.SIGTERM)
    began = time.monotonic()
    _, status = os.waitpid(worker, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert time.monotonic() - began < 30
    time.sleep(0.2)
    assert not flag.is_set
    os.kill(os.getpid(), signal.SIGTERM)
    assert flag.is_set, "the parent is still told"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_handler_of_a_worker_s_own_is_left_alone(flag):
    reader, writer = os.pipe()
    before = signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    try:
        worker = os.fork()
        if worker == 0:
            os.write(writer, b"x")
            time.sleep(60)
            os._exit(0)
    finally:
        signal.signal(signal.SIGTERM, before)
    os.read(reader, 1)
    os.kill(worker, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 7
    time.sleep(0.2)
    assert not flag.is_set, "they share the wake-up descriptor"
    os.close(reader)
    os.close(writer)


def test_a_handler_that_is_installed_later_does_not_hide_the_signal(flag):
    handled = []
    signal.signal(signal.SIGTERM, lambda *_: handled.append(1))
    os.kill(os.getpid(), signal.SIGTERM)
    deadline = time.monotonic() + 10
    while not flag.is_set and time.monotonic() < deadline:
        time.sleep(0.01)
    assert handled
    assert flag.is_set


def test_outside_the_main_thread_it_says_what_to_do():
    problems = []

    def install():
        try:
            StopFlag().install()
        except RuntimeError as error:
            problems.append(str(error))

    thread = threading.Thread(target=install)
    thread.start()
    thread.join()
    assert "main thread" in problems[0]


class Peers:
    """Two ranks; the other one is told what we say, and says what it is told to."""

    world = 2

    def __init__(self, *, stop=False, microseconds=0):
        self.asked = 0
        self.stop, self.microseconds = stop, microseconds

    def most(self, values):
        self.asked += 1
        answer = [max(values[0], int(self.stop)), max(values[1], self.microseconds)]
        return lambda: answer


def calls_until_asked(together, peers):
    asked, calls = peers.asked, 0
    while peers.asked == asked:
        together.should_stop()
        calls += 1
    return calls


@pytest.mark.parametrize(("slowest", "calls"), [(10_000, 25), (33_000, 7), (100_000, 2), (5_000_000, 1), (100, 32)])
def test_ranks_ask_each_other_four_times_a_second_by_the_slowest_of_them(slowest, calls):
    peers = Peers(microseconds=slowest)
    together = StopTogether(StopFlag(), peers)
    assert calls_until_asked(together, peers) == 1
    together._asked_at = time.monotonic() + 60  # this rank is the faster one
    assert calls_until_asked(together, peers) == calls


def test_the_flag_of_another_rank_is_raised_when_they_have_asked_and_stays():
    peers = Peers(microseconds=125_000)
    together = StopTogether(StopFlag(), peers)
    assert not together.should_stop()
    peers.stop = True
    assert [together.should_stop() for _ in range(4)] == [False, False, True, True]


def test_a_rank_that_was_told_says_so_when_they_ask():
    peers, flag = Peers(microseconds=125_000), StopFlag()
    together = StopTogether(flag, peers)
    together.should_stop()
    flag.raise_flag()
    assert [together.should_stop() for _ in range(3)] == [False, False, True]


def test_the_answer_is_not_waited_for_at_the_call_that_asks():
    peers = Peers(microseconds=1_000)
    together = StopTogether(StopFlag(), peers)
    calls_until_asked(together, peers)
    peers.stop = True
    calls_until_asked(together, peers)
    assert [together.should_stop() for _ in range(20)] == [False] * 19 + [True], "20 ms later"


def test_a_signal_behind_the_question_waits_for_the_next_one():
    """The others were told that nobody stops, and would wait for this rank in the next step."""
    peers, flag = Peers(microseconds=1_000), StopFlag()
    together = StopTogether(flag, peers)
    calls_until_asked(together, peers)
    calls_until_asked(together, peers)
    flag.raise_flag()
    assert [together.should_stop() for _ in range(20)] == [False] * 20, "the answer to a question of before"
    calls_until_asked(together, peers)
    assert [together.should_stop() for _ in range(20)] == [False] * 19 + [True]


def test_slow_steps_are_told_at_the_call_that_asks():
    peers = Peers(microseconds=1_000_000)
    together = StopTogether(StopFlag(), peers)
    assert not together.should_stop()
    peers.stop = True
    assert together.should_stop()


class Met:
    """Ranks as threads, which ask together; their n-th questions belong to each other."""

    world = 2

    def __init__(self, questions, arrived):
        self.questions, self.arrived, self.asked = questions, arrived, 0

    def most(self, values):
        number, self.asked = self.asked, self.asked + 1
        with self.arrived:
            self.questions.setdefault(number, []).append(values)
            self.arrived.notify_all()

        def answer():
            with self.arrived:
                assert self.arrived.wait_for(lambda: len(self.questions[number]) == self.world, timeout=20)
                return [max(told) for told in zip(*self.questions[number], strict=True)]

        return answer


@pytest.mark.parametrize("seed", range(8))
def test_ranks_of_different_speed_stop_at_the_same_call(seed):
    draw = random.Random(seed)
    questions, arrived = {}, threading.Condition()
    told, at, stopped = draw.randrange(2), draw.randrange(150), {}

    def train(rank, pauses):
        flag = StopFlag()
        together = StopTogether(flag, Met(questions, arrived))
        for call, pause in enumerate(pauses):
            time.sleep(pause)
            if rank == told and call == at:
                flag.raise_flag()
            if together.should_stop():
                stopped[rank] = call
                return

    pauses = [[draw.choice((0.0, 0.0002, 0.001, 0.004)) for _ in range(400)] for _ in range(2)]
    ranks = [threading.Thread(target=train, args=(rank, pauses[rank])) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert stopped[0] == stopped[1]
    assert at <= stopped[0] <= at + 2 * MOST_CALLS
    assert all(len(values) == 2 for values in questions.values())


def test_the_only_rank_asks_nobody():
    peers, flag = Peers(), StopFlag()
    peers.world = 1
    together = StopTogether(flag, peers)
    assert not together.should_stop()
    flag.raise_flag()
    assert together.should_stop()
    assert peers.asked == 0
