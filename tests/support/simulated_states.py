"""A simulated run in each state that a request or a suspension may meet."""

from __future__ import annotations

from support.manifests import make_init
from support.observations import make_report
from support.simulated_world import World
from sweeprun_protocol.reasons import Outcome


def preparing() -> World:
    return World().settle()


def initializing() -> World:
    return World(init=make_init()).settle().answer(make_report(0, Outcome.INIT_REQUIRED))


def waiting_for_a_prepare() -> World:
    return World().settle().fail_job()


def waiting_for_an_attempt() -> World:
    return World().begin().break_down().answer(make_report(1, Outcome.RESTART))


def starting() -> World:
    return World().settle().answer(make_report(0, Outcome.FRESH))


def running() -> World:
    return World().begin()


def draining() -> World:
    return World().begin().evict()
