"""The report is one page that loads nothing, runs nothing, and shows whatever a status holds as text."""

from __future__ import annotations

import re
from datetime import datetime
from html.parser import HTMLParser

import pytest

from support.shown import HOSTILE, NOW, running_attempt, shown_attempt, shown_run, shown_status
from sweeprun_cli.cluster.runs import Run
from sweeprun_cli.exits import CommandError
from sweeprun_cli.report.markup import element, joined
from sweeprun_cli.report.metrics import read_lines
from sweeprun_cli.report.page import MAX_DETAILED, page_of_run, page_of_sweep
from sweeprun_operator.api.status import Kind
from sweeprun_protocol.curve import encode_row

THEN = datetime.fromisoformat(NOW)
LOADS = {"src", "href", "srcset", "data", "action", "formaction", "poster", "background", "xlink:href", "ping"}
VOID = {"meta"}


class Page(HTMLParser):
    """Parses strictly: what is opened is closed, in order; nothing else is forgiven."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def run(**status) -> Run:
    return Run.of(shown_run(status=shown_status(**status)))


def page(**status) -> Page:
    return Page(page_of_run(run(**status), THEN))


PAGES = {
    "run": lambda: page_of_run(run(), THEN),
    "sweep": lambda: page_of_sweep("digits-lr", [run(), Run.of(shown_run("digits-lr-1", status={}))], THEN),
    "nothing": lambda: page_of_run(Run.of(shown_run(status={})), THEN),
}


@pytest.mark.parametrize("made", PAGES.values(), ids=PAGES)
def test_the_page_is_well_formed_and_loads_nothing(made):
    text = made()
    parsed = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"} & set(parsed.tags)
    assert not [one for one in parsed.attributes if one[1] in LOADS or one[1].startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in text
    policies = [value for tag, name, value in parsed.attributes if tag == "meta" and "default-src" in value]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_hostile_texts_are_text():
    attack = '"><script>alert(1)</script><img src=x onerror=alert(2)>' + HOSTILE
    refused = [{"path": attack, "reason": "CrcMismatch", "message": attack, "entry": attack}]
    hostile = {"evidence": attack, "node": attack, "refused": refused}
    status = shown_status(
        phase="</style>",
        history=[shown_attempt(**hostile), running_attempt()],
        result={"step": 7, "metrics": {attack: attack[:64]}},
    )
    text = page_of_sweep(attack, [Run.of(shown_run(status=status))], THEN)
    parsed = Page(text)
    assert not {"script", "img"} & set(parsed.tags)
    assert "onerror" in parsed.text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_attributes_and_texts_are_escaped_by_construction():
    made = element("p", "<b>", element("i", "&"), title='"x"')
    assert made == '<p title="&quot;x&quot;">&lt;b&gt;<i>&amp;</i></p>'
    assert joined("<", None, made) == f"&lt;{made}"


def test_pictures_have_titles_and_tables_that_say_the_same():
    parsed = page()
    labels = [value for tag, name, value in parsed.attributes if tag == "svg" and name == "aria-label"]
    assert labels == [
        "Attempts of digits-lr-0",
        "Steps of digits-lr-0, across attempts",
        "Recovery of digits-lr-0, phase by phase",
    ]
    assert parsed.tags.count("caption") == parsed.tags.count("table") >= 2
    assert parsed.tags.count("h1") == 1
    assert ("html", "lang", "en") in parsed.attributes
    for figure in labels:
        assert figure in parsed.texts


def test_the_page_tells_cause_node_steps_recovery_and_savings():
    text = page().text
    for told in ("EvictionAPI", "gpu-7", "12 s", "steps repeated", "26 min 40 s", "2026-01-02 03:30:00 UTC"):
        assert told in text, told


def test_what_is_not_known_is_unknown():
    unseen = page(history=[shown_attempt(toStep=None)], progress=None).text
    assert "Steps over time: unknown" in unseen
    assert "Metrics over steps: unknown" in unseen


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_end_has_a_colour_in_light_and_dark_and_a_word(kind):
    text = page_of_run(run(history=[shown_attempt(kind=str(kind))]), THEN)
    (word,) = re.findall(r'class="bar ((?!phase-)[a-z-]+)"/></svg>', text)
    assert text.count(f"--{word}: #") == 2
    assert f".bar.{word} {{" in text
    assert str(kind) in Page(text).text


def test_repeated_steps_fall_to_where_the_next_attempt_began():
    text = page_of_run(run(), THEN)
    assert "40 steps repeated by attempt 1" in text
    assert 'class="lost"' in text


def test_a_sweep_adds_up_what_its_runs_kept():
    runs = [Run.of(shown_run(f"digits-lr-{number}")) for number in range(3)]
    text = Page(page_of_sweep("digits-lr", runs, THEN)).text
    assert "2,100" in text
    assert "1 h 20 min" in text


def test_a_large_sweep_is_bounded():
    raw = shown_run()
    runs = [Run.of({**raw, "metadata": {**raw["metadata"], "name": f"r{n}"}}) for n in range(MAX_DETAILED + 2)]
    parsed = Page(page_of_sweep("digits-lr", runs, THEN))
    assert "2 more runs are in the tables only." in parsed.texts
    assert parsed.tags.count("section") == MAX_DETAILED


def kept(directory, epoch: int, *rows: bytes) -> None:
    path = directory / "epochs" / str(epoch) / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(rows))


def test_metrics_on_the_volume_are_drawn_over_steps_across_attempts(tmp_path):
    (tmp_path / "claims").mkdir()
    kept(tmp_path, 1, *(encode_row(step, {"accuracy": step / 1000, "train_loss": 1 / step}) for step in range(1, 740)))
    kept(tmp_path, 2, *(encode_row(step, {"accuracy": 0.7, "train_loss": 1 / step}) for step in (700, 710, 720)))
    one = run()
    parsed = Page(page_of_run(one, THEN, read_lines(tmp_path, one.status.history)))
    labels = [value for tag, name, value in parsed.attributes if tag == "svg" and name == "aria-label"]
    assert labels[2:4] == ["train_loss of digits-lr-0, over steps", "accuracy of digits-lr-0, over steps"]
    assert "Attempt 1: 0.001429 to 0.001389" in parsed.texts
    assert "Metrics as the volume has them" in parsed.texts


def test_what_a_volume_holds_in_place_of_metrics_is_left_out_or_refused(tmp_path):
    (tmp_path / "claims").mkdir()
    rows = (
        b"\xff\n",
        b'{"step": 1',
        b"[]\n",
        encode_row(5, {HOSTILE: 1.0, "loss": 2.0}),
        b'{"step": -1, "metrics": {}}\n',
    )
    kept(tmp_path, 1, *rows)
    one = run()
    text = page_of_run(one, THEN, read_lines(tmp_path, one.status.history))
    assert "loss of digits-lr-0" in text
    assert "<script" not in text
    assert "\x1b" not in text
    with pytest.raises(CommandError, match="is no directory"):
        read_lines(tmp_path / "elsewhere", one.status.history)
    (tmp_path / "epochs" / "2").mkdir()
    (tmp_path / "epochs" / "2" / "metrics.jsonl").symlink_to("/etc/passwd")
    with pytest.raises(CommandError, match="cannot be read"):
        read_lines(tmp_path, one.status.history)


@pytest.mark.parametrize("end", ["2026-01-02T02:00:00Z", "9999-12-31T23:59:59Z"])
def test_clocks_that_contradict_each_other_still_make_a_page(end):
    assert "Attempts of" in page(history=[shown_attempt(endTime=end), running_attempt(startTime=end)]).text
