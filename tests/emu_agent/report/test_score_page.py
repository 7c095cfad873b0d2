"""The page of a scored folder: everything of scores.json is there, and nothing from elsewhere."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from emu_agent.errors import DatasetError
from emu_agent.evaluation.scores import ControlCheck, Missing, Scores
from emu_agent.report.evaluation import viewer
from emu_agent.report.evaluation.moments import load_moments
from emu_agent.report.evaluation.page import render_scores, write_score_report
from emu_agent.report.evaluation.tables import render_controls, render_gaps, render_metrics
from emu_agent.report.evaluation.usefulness import render_usefulness
from emu_agent.report.evaluation.viewer import render_samples

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
    assert page.all("h1")


def test_it_asks_nobody_for_anything(text: str, page: Page) -> None:
    without_pictures = re.sub(r"base64,[^\"]*", "", text)
    assert not re.search(r"https?:|//|<link|url\(|@import|fetch\(|XMLHttp", without_pictures)
    sources = [
        attributes["src"] for attributes in page.all("img") + page.all("script") if "src" in attributes
    ]
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert len(text) < 10 * 2**20


def test_a_slider_has_as_many_stops_as_its_sample_has_frames(
    scored: Path, scores: Scores, page: Page
) -> None:
    stops = [json.loads(figure["data-stops"]) for figure in page.all("figure") if "data-stops" in figure]
    sliders = [field for field in page.all("input") if field["type"] == "range"]
    assert len(stops) == len(sliders) == len(scores.samples) > 3
    expected = sorted([moment.frame for moment in load_moments(scored, one)] for one in scores.samples)
    assert sorted([stop[0] for stop in one] for one in stops) == expected
    for slider, of_sample in zip(sliders, stops, strict=True):
        assert int(slider["max"]) + 1 == len(of_sample)
        assert slider["aria-label"]
        assert all(meant <= frame for frame, meant, *_ in of_sample)
    assert all(len(frames) > 2 for frames in expected), "the frames between those compared are there too"


def test_why_a_metric_is_not_applicable_stands_in_plain_words(scores: Scores) -> None:
    metric = next(one for one in scores.metrics if one.applicable)
    check = next(check for check in metric.checks if check.against == "truth")
    failed: ControlCheck = replace(check, control="blur", mode="simulate", below=False)
    spoilt = replace(metric, applicable=False, why_not="not ranked", checks=(*metric.checks, failed))
    changed = replace(scores, metrics=(spoilt,))
    for part in (render_controls(changed), render_metrics(changed)):
        assert "it does not tell blurred truth (given actions) from the truth here" in Page(part).text
    assert "✗" in Page(render_controls(changed)).words
    assert "✗" not in Page(render_controls(replace(scores, metrics=(metric,)))).words


def test_missing_rows_are_named(scores: Scores) -> None:
    lost = Missing(what="states", metrics=("hand_final", "teleports"), reason="the dataset has no <states>")
    told = Page(render_gaps(replace(scores, missing=(lost,), skipped=()))).text
    assert told == "the dataset has no <states> : hand_final, teleports"
    assert render_gaps(replace(scores, missing=(), skipped=())) == ""


def test_words_of_a_dataset_cannot_become_tags(scored: Path, scores: Scores) -> None:
    frames = tuple(replace(frame, text='"><script>alert(1)</script>') for frame in scores.samples[0].frames)
    nasty = replace(scores.samples[0], instruction="<script>x</script>", frames=frames)
    changed = replace(scores, samples=(nasty,), metrics=(), model={"name": "<script>y</script>"})
    whole = Page(render_scores(scored, changed, {"commit": "<script>z</script>"}, scored))
    assert len(whole.all("script")) == 1


def test_samples_that_do_not_fit_are_named(
    scored: Path, scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "PICTURE_BYTES", 0)
    told = Page(render_samples(scored, scores.samples))
    assert not told.all("img")
    for sample in scores.samples:
        assert Path(sample.frames[0].truth).parent.as_posix() in told.text


def test_a_model_that_gives_no_pictures_says_so(scored: Path, scores: Scores) -> None:
    frames = tuple(replace(frame, imagined=None) for frame in scores.samples[0].frames)
    told = Page(render_samples(scored, [replace(scores.samples[0], frames=frames)]))
    assert len(told.all("img")) == 1
    assert told.text.count("this model gives no pictures") == 2


def test_a_folder_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="emu-agent score"):
        write_score_report(tmp_path)


def test_a_broken_run_file_is_named(scored: Path, tmp_path: Path) -> None:
    shutil.copy(scored / "scores.json", tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DatasetError, match=r"run\.json"):
        write_score_report(tmp_path)


def test_calibration_and_ranking_are_shown_where_they_were_measured(tmp_path: Path) -> None:
    assert render_usefulness(tmp_path) == ""
    interval = {"value": 0.91, "low": 0.8, "high": 0.97}
    outcomes = {"success_rate": 0.5, "solved": [True, False], "wilson95": [0.1, 0.9]}
    ranking = {
        "ranking": {
            "episodes": 2,
            "pearson": {**interval, "value": 0.7},
            "spearman": interval,
            "mmrv": interval,
        },
        "candidates": dict.fromkeys(("kendall", "spearman", "chosen", "by_chance"), interval),
        "policies": {"weak": {"imagined": outcomes, "simulated": outcomes}},
        "why": "too few episodes",
    }
    (tmp_path / "policy_ranking.json").write_text(json.dumps(ranking))
    bins = [{"low": 0.0, "high": 0.5, "count": 8, "trust": 0.2, "share_true": 0.25},
            {"low": 0.5, "high": 1.0, "count": 0, "trust": None, "share_true": None}]  # fmt: skip
    test = {"auroc": interval, "brier": interval, "calibration_error": interval, "moments": 8}
    (tmp_path / "trust_score.json").write_text(
        json.dumps({"test": test, "by_kind": {"pushed": test}, "reliability": bins})
    )
    told = Page(render_usefulness(tmp_path)).text
    for shown in ("weak", "Pearson correlation of 0.8 is not reached: 0.7", "too few episodes",
                  "AUROC of 0.8 is reached: 0.91", "AUROC, pushed", "0.91 (0.8 to 0.97)"):  # fmt: skip
        assert shown in told
    (tmp_path / "trust_score.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"trust_score\.json is not what"):
        render_usefulness(tmp_path)
