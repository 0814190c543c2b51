"""What the watches hear, and why they end."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import aiohttp
import kopf
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from sweeprun_operator.handlers import doorbell
from sweeprun_operator.handlers.doorbell import Doorbell, reason_of
from sweeprun_operator.handlers.hearing import Hearing
from sweeprun_operator.metric_catalogue import End

PODS, JOBS = URL("http://s/api/v1/pods?limit=500"), URL("http://s/apis/batch/v1/jobs")
WATCH = {"watch": "true", "allowWatchBookmarks": "true"}


@pytest.fixture
def hearing(clock):
    return Hearing(frozenset({"pods", "jobs"}), monotonic=clock)


class Stream:
    total_bytes = 0
    ended = False

    def is_eof(self):
        return self.ended


def answer(status=200):
    return SimpleNamespace(status=status, content=Stream())


def begins(hearing, url):
    """Gives what the server answers to the watch."""
    hearing.asks(url)
    hearing.answered(url, answer())
    watched = answer()
    hearing.answered(url.with_query(WATCH), watched)
    return watched


def test_a_watch_on_which_bookmarks_come_is_heard(hearing, clock):
    watched = begins(hearing, PODS)
    for _ in range(10):
        clock.now += 60
        watched.content.total_bytes += 200
        hearing.look()
        assert hearing.deafest() == ("/api/v1/pods", 0.0)


def test_a_watch_that_the_server_ends_is_heard(hearing, clock):
    watched = begins(hearing, PODS)
    clock.now += 60
    watched.content.ended = True
    hearing.look()
    assert hearing.deafest() == ("/api/v1/pods", 0.0)
    clock.now += 60
    hearing.look()
    assert hearing.deafest() == ("/api/v1/pods", 60.0), "once"


def test_a_watch_that_was_answered_and_tells_nothing_is_deaf(hearing, clock):
    begins(hearing, PODS)
    clock.now += 60
    hearing.look()
    clock.now += 60
    hearing.look()
    assert hearing.deafest() == ("/api/v1/pods", 120.0)


def test_lists_do_not_make_up_for_a_watch_that_is_refused(hearing, clock):
    for _ in range(3):
        hearing.asks(PODS)
        hearing.answered(PODS, answer())
        hearing.answered(PODS.with_query(WATCH), answer(403))
        clock.now += 60
        hearing.look()
    assert hearing.deafest() == ("/api/v1/pods", 180.0)


def test_the_pages_of_a_long_list_are_heard(hearing, clock):
    hearing.asks(PODS)
    for _ in range(10):
        clock.now += 60
        hearing.asks(PODS.update_query({"continue": "token"}))
        assert hearing.deafest() == ("/api/v1/pods", 0.0)


def test_pages_do_not_make_up_for_a_watch_that_is_refused(hearing, clock):
    hearing.asks(PODS)
    for _ in range(3):
        hearing.asks(PODS.with_query(WATCH))
        hearing.answered(PODS.with_query(WATCH), answer(500))
        clock.now += 60
        hearing.asks(PODS.update_query({"continue": "token"}))
    assert hearing.deafest() == ("/api/v1/pods", 180.0)


def test_the_deafest_of_all_watches_counts(hearing, clock):
    begins(hearing, PODS)
    clock.now += 10
    watched = begins(hearing, JOBS)
    clock.now += 10
    watched.content.total_bytes += 1
    hearing.look()
    assert hearing.deafest() == ("/api/v1/pods", 20.0)


def test_what_the_last_watch_heard_is_kept_where_it_is_made_again(hearing, clock):
    begins(hearing, PODS).content.total_bytes = 7
    clock.now += 5
    begins(hearing, PODS)
    clock.now += 5
    hearing.look()
    assert hearing.deafest() == ("/api/v1/pods", 5.0)


def test_nothing_was_asked_of_kinds_that_the_server_does_not_know(hearing, clock):
    hearing.asks(PODS)
    hearing.asks(URL("http://s/apis/batch/v1"))
    assert hearing.unasked(clock.now) == {"jobs"}
    assert hearing.unasked(clock.now + 1) == {"pods", "jobs"}


class AnswerError(Exception):
    def __init__(self, status):
        self.status = status


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (kopf.LoginError("no credentials"), End.UNAUTHORIZED),
        (AnswerError(401), End.UNAUTHORIZED),
        (AnswerError(403), End.FORBIDDEN),
        (AnswerError(404), End.REFUSED),
        (AnswerError(410), End.EXPIRED),
        (AnswerError(503), End.SERVER_ERROR),
        (aiohttp.ServerDisconnectedError(), End.UNREACHABLE),
        (TimeoutError(), End.UNREACHABLE),
        (RuntimeError("a bug"), End.OTHER),
    ],
)
def test_what_kopf_died_of_is_told_by_one_word(error, reason):
    assert reason_of(error) is reason


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/apis/sweeprun.dev/v1alpha1/sweepruns?limit=500", "PartialObjectMetadataList"),
        ("/apis/batch/v1/jobs?watch=true", "PartialObjectMetadata"),
        ("/apis/kubeflow.org/v1/namespaces/team/pytorchjobs?watch=true", "PartialObjectMetadata"),
        ("/api/v1/pods?watch=true", None),
        ("/apis/batch/v1", None),
    ],
)
async def test_whole_objects_are_asked_for_only_where_their_conditions_are_read(path, accept):
    async def says_what_was_asked(request):
        return web.json_response({"accept": request.headers["Accept"], "items": None})

    async def nobody():
        return None

    app = web.Application()
    app.router.add_get("/{any:.*}", says_what_was_asked)
    known = SimpleNamespace(authorization=nobody, tls=True, proxy=None)
    async with (
        TestServer(app) as server,
        doorbell.session(known, Hearing(frozenset(), monotonic=time.monotonic)) as mine,
        mine.get(server.make_url("/").join(URL(path))) as answered,
    ):
        said = await answered.json()
    assert said["accept"] == (f"application/json;as={accept};g=meta.k8s.io;v=v1" if accept is not None else "*/*")
    assert said["items"] == [], "the server says null of no metadata, and kopf goes through them"


async def test_kinds_that_may_have_been_installed_since_are_looked_for_again(tmp_path, monkeypatch):
    kubeconfig = tmp_path / "kubeconfig"
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    clusters, users = [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}], [{"name": "u", "user": {}}]
    config = {"clusters": clusters, "users": users, "contexts": [context], "current-context": "c"}
    kubeconfig.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))
    monkeypatch.setattr(doorbell, "DEAF_SECONDS", 0.05)
    monkeypatch.setattr(doorbell, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(doorbell, "FIRST_BACKOFF", 0.01)

    async def asks_nothing(*, stop_flag, **_):
        await stop_flag.wait()

    monkeypatch.setattr(kopf, "operator", asks_nothing)
    ends, twice, loop = [], asyncio.Event(), asyncio.get_running_loop()

    def ended(end):
        ends.append(end)
        if len(ends) == 2:
            loop.call_soon_threadsafe(twice.set)

    bell = Doorbell(lambda _, __: None, lambda _: None, namespaces=None, kubeconfig=str(kubeconfig), ended=ended)
    bell.start()
    try:
        async with asyncio.timeout(20):
            await twice.wait()
    finally:
        await asyncio.to_thread(bell.stop)
    assert ends[:2] == [End.KIND_UNKNOWN, End.KIND_UNKNOWN]
    assert bell.hearing.deafest() == ("", 0.0), "what is not installed is no reason to be restarted"
