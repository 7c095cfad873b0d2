"""The page of a scored folder: everything of scores.json is there, and nothing from elsewhere."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from emu_agent.errors import DatasetError
from emu_agent.evaluation.scores import ActionSensitivity, ControlCheck, Estimate, Missing, Scores
from emu_agent.report.scores import render_scores, strip, write_score_report

VOID = {"meta", "br", "img", "input"}


class Page(HTMLParser):
    """The words, tags and attributes of a page; what is opened must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def text(scored: Path) -> str:
    return write_score_report(scored).read_text()


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def scores(scored: Path) -> Scores:
    return Scores.read(scored)


@pytest.fixture(scope="module")
def bare(scores: Scores) -> Scores:
    """The same without what takes long to draw."""
    overall = replace(scores.overall, curve=())
    return replace(scores, samples=(), metrics=(), missing=(), skipped=(), overall=overall)


def test_everything_of_the_scores_is_there(scores: Scores, page: Page) -> None:
    assert scores.metrics
    for metric in scores.metrics:
        assert metric.name in page.text
        assert " ".join(metric.meaning.split()) in page.text
    for candidate in scores.candidates[2:]:
        assert candidate.meaning in page.text
    for skipped in scores.skipped:
        assert f"episode {skipped.episode}: {skipped.reason}" in page.text
    assert "1 of 3 episodes were skipped" in page.text
    assert "2026-01-02 03:04" in page.text
    assert "nothing could be measured" in page.text
    assert scores.overall.verdict in page.text
    assert page.all("h1")


def test_it_asks_nobody_for_anything(text: str, page: Page) -> None:
    without_pictures = re.sub(r"base64,[^\"]*", "", text)
    assert not re.search(r"https?:|//|<link|url\(|@import|fetch\(|XMLHttp", without_pictures)
    sources = [
        attributes["src"] for attributes in page.all("img") + page.all("script") if "src" in attributes
    ]
    assert sources
    assert all(re.match(r"data:image/(png|jpeg);base64,", source) for source in sources)
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert len(text) < 10 * 2**20


def test_why_a_metric_is_not_applicable_stands_in_plain_words(
    scored: Path, scores: Scores, bare: Scores
) -> None:
    metric = next(one for one in scores.metrics if one.applicable)
    check = metric.checks[0]
    failed: ControlCheck = replace(check, control="blur", mode="simulate", below=False)
    metric = replace(metric, curve=())
    spoilt = replace(metric, applicable=False, why_not="not ranked", checks=(*metric.checks, failed))
    told = Page(render_scores(scored, replace(bare, metrics=(spoilt,)), {}))
    assert told.text.count("it does not tell blurred truth (given actions) from the truth here") == 2
    assert "✗" in told.words
    assert "✗" not in Page(render_scores(scored, replace(bare, metrics=(metric,)), {})).words


def test_action_sensitivity_is_shown_or_said_to_be_missing(scored: Path, bare: Scores) -> None:
    assert "Not measured: no counterfactual branches" in Page(render_scores(scored, bare, {})).text
    value = Estimate(mean=0.25, low=0.125, high=0.5, episodes=9, samples=90)
    actions = ActionSensitivity(
        value=value, skill=value, correlation=value, found=value, skill_own=value, found_share=0.75,
        chance=0.125, by_chunk={"negated": {"skill": -0.375, "correlation": None}}, states=7, branches=56,
    )  # fmt: skip
    overall = replace(bare.overall, action_sensitivity=actions)
    shown = Page(render_scores(scored, replace(bare, overall=overall), {}))
    for told in ("56 chunks", "7 saved states", "75 %; 0 is chance, 12.5 %", "0.25 (0.125 to 0.5)", "−0.375"):
        assert told in shown.text


def test_missing_rows_are_named(scored: Path, bare: Scores) -> None:
    lost = Missing(
        what="states", metrics=("step_accuracy", "step_order"), reason="the dataset has no <states>"
    )
    told = Page(render_scores(scored, replace(bare, missing=(lost,)), {})).text
    assert "the dataset has no <states> : step_accuracy, step_order" in told
    assert '<ul class="warn">' not in render_scores(scored, bare, {})


def test_words_of_a_dataset_cannot_become_tags(scored: Path, scores: Scores, bare: Scores) -> None:
    frames = tuple(replace(frame, text='"><script>alert(1)</script>') for frame in scores.samples[0].frames)
    nasty = replace(scores.samples[0], instruction="<script>x</script>", frames=frames)
    changed = replace(bare, samples=(nasty,), model={"name": "<script>y</script>"})
    whole = Page(render_scores(scored, changed, {"commit": "<script>z</script>"}))
    assert not whole.all("script")


def test_every_sample_has_a_strip_of_its_frames(scored: Path, scores: Scores, page: Page) -> None:
    shown = [one for one in page.all("img") if one["alt"].startswith("above what happened")]
    assert len(shown) == len(scores.samples) > 3
    made = strip(scored, scores.samples[0])
    frames = len(scores.samples[0].frames)
    height, width = made.shape[0] // 3, made.shape[1] // frames
    assert frames > 1
    truth, imagined, difference = (made[i * height : (i + 1) * height] for i in range(3))
    assert np.array_equal(truth[:, :width], imagined[:, :width]), "the start is seen, not imagined"
    assert not difference[:, :width].any()
    assert difference[:, width:].any()


def test_an_image_from_elsewhere_is_refused(scored: Path, scores: Scores, bare: Scores) -> None:
    frames = (replace(scores.samples[0].frames[0], truth="../away.png"),)
    with pytest.raises(DatasetError, match="no image of this folder"):
        render_scores(scored, replace(bare, samples=(replace(scores.samples[0], frames=frames),)), {})


def test_a_folder_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="emu-agent score"):
        write_score_report(tmp_path)


def test_a_broken_run_file_is_named(scored: Path, tmp_path: Path) -> None:
    shutil.copy(scored / "scores.json", tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DatasetError, match=r"run\.json"):
        write_score_report(tmp_path)
