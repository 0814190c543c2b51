"""The report as a real browser lays it out: everything is in its place, nothing is loaded, nothing is complained of."""

from __future__ import annotations

import os
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from support import browser as browsers
from support.shown import HOSTILE, NOW, shown_attempt, shown_run, shown_status
from support.shown_story import lines_of_the_story, story_of_a_run
from sweeprun_cli.cluster.runs import Run
from sweeprun_cli.report.page import page_of_run, page_of_sweep

THEN = datetime.fromisoformat(NOW)
ATTACK = '"><script>window.owned = 1</script><img src=x onerror="window.owned = 2">' + HOSTILE

BOXES = """
[...document.querySelectorAll('figure svg')].map(svg => {
  const inside = svg.getBoundingClientRect();
  const boxes = selector => [...svg.querySelectorAll(selector)].map(one => {
    const box = one.getBoundingClientRect();
    return {text: one.textContent, left: box.left, right: box.right, top: box.top, bottom: box.bottom};
  });
  return {title: svg.getAttribute('aria-label'), width: inside.width, height: inside.height, left: inside.left,
          right: inside.right, top: inside.top, bottom: inside.bottom,
          bars: boxes('rect.bar'), texts: boxes('text'), lines: boxes('path')};
})
"""
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if browsers.program() is None:
        if os.environ.get("CI"):
            pytest.fail("no browser on a machine that skips nothing: install the package chromium")
        pytest.skip("no chromium here")
    with browsers.running(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def opened(browser, tmp_path):
    def show(text: str, **view) -> browsers.Page:
        path = tmp_path / "report.html"
        path.write_text(text)
        page = browser.open(path)
        page.show(**{"width": 1100, "height": 900, **view})
        return page

    return show


def of_run() -> str:
    return page_of_run(story_of_a_run(), THEN, lines_of_the_story())


def of_sweep() -> str:
    return page_of_sweep("digits-lr", [story_of_a_run(), Run.of(shown_run("digits-lr-1"))], THEN)


def apart(boxes) -> bool:
    """No two of them lie over each other by more than a pixel."""
    return not any(
        min(one["right"], other["right"]) - max(one["left"], other["left"]) > 1
        and min(one["bottom"], other["bottom"]) - max(one["top"], other["top"]) > 1
        for number, one in enumerate(boxes)
        for other in boxes[:number]
    )


@pytest.mark.parametrize("made", [of_run, of_sweep], ids=["run", "sweep"])
@pytest.mark.parametrize("width", [1100, 390], ids=["desk", "phone"])
def test_everything_is_laid_out_and_nothing_is_loaded(made, width, opened):
    page = opened(made(), width=width)
    pictures = page.evaluate(BOXES)
    assert len(pictures) >= 3
    for picture in pictures:
        assert picture["width"] >= 300, picture["title"]
        assert picture["height"] >= 20, picture["title"]
        for box in (*picture["bars"], *picture["lines"], *picture["texts"]):
            assert picture["left"] - 1 <= box["left"] <= box["right"] <= picture["right"] + 1, (picture["title"], box)
            assert picture["top"] - 1 <= box["top"] <= box["bottom"] <= picture["bottom"] + 1, (picture["title"], box)
        assert all(bar["right"] > bar["left"] for bar in picture["bars"]), picture["title"]
        assert apart(picture["texts"]), [text["text"] for text in picture["texts"]]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page itself never scrolls sideways"
    assert [url.rsplit("/", 1)[-1] for url in page.requests] == ["report.html"]
    assert page.complaints == []


def test_attempts_follow_one_another_in_time(opened):
    timeline = opened(of_run()).evaluate(BOXES)[0]
    bars = timeline["bars"]
    assert len(bars) == len(story_of_a_run().status.history)
    for before, after in pairwise(bars):
        assert before["right"] <= after["left"] + 1
        assert before["bottom"] <= after["top"]


def test_light_and_dark_are_two_colours_and_text_is_readable_on_both(opened):
    page = opened(of_run())
    light = page.evaluate(BACKGROUND)
    page.show(width=1100, height=900, dark=True)
    assert (light, page.evaluate(BACKGROUND)) == ("rgb(255, 255, 255)", "rgb(13, 17, 23)")
    assert page.evaluate("getComputedStyle(document.querySelector('svg text.label')).fill") == "rgb(230, 237, 243)"


def test_hostile_texts_run_nothing(opened):
    refused = [{"path": ATTACK, "reason": "CrcMismatch", "message": ATTACK, "entry": ATTACK}]
    history = [shown_attempt(evidence=ATTACK, node=ATTACK, refused=refused)]
    page = opened(page_of_run(Run.of(shown_run(status=shown_status(history=history))), THEN))
    assert page.evaluate("typeof window.owned") == "undefined"
    assert page.evaluate("document.body.innerText").count("onerror") >= 4
    assert len(page.requests) == 1
    assert page.complaints == []


def test_a_page_that_runs_or_loads_something_is_seen(opened):
    body = "<script>window.owned = 1</script><img src='missing.png'>"
    assert opened(f"<!DOCTYPE html>{body}").evaluate("window.owned") == 1
    loading = opened(f"<!DOCTYPE html>{body}")
    assert any(url.endswith("missing.png") for url in loading.requests)
    guarded = opened(of_run().replace("<main>", f"<main>{body}"))
    assert guarded.evaluate("typeof window.owned") == "undefined", "the page's own policy forbids scripts"
    assert guarded.complaints


def test_the_picture_in_the_readme_is_small():
    picture = Path(__file__).parents[3] / "docs" / "images" / "report.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size < 200_000
