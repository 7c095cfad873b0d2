"""scores.json: what is written is read back, and nothing else is."""

import json
from pathlib import Path

import pytest

from emu_agent.errors import DatasetError
from emu_agent.evaluation.scores import SCORES_FILE, Estimate, Overall, Scores


def scores() -> Scores:
    nothing = Estimate(mean=None, low=None, high=None, episodes=0, samples=0)
    overall = Overall(
        value=nothing, verdict="", skill=nothing, curve=(), action_sensitivity=None, negative_checks=()
    )
    return Scores(
        dataset={"path": "here"}, model={"name": "ours"}, settings={"starts": 3}, scored=(1, 2), skipped=(),
        missing=(), candidates=(), overall=overall, metrics=(), samples=(),
    )  # fmt: skip


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    scores().write(tmp_path)
    assert Scores.read(tmp_path) == scores()


def test_a_folder_without_scores_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="emu-agent score output="):
        Scores.read(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    scores().write(tmp_path)
    path = tmp_path / SCORES_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    with pytest.raises(DatasetError, match="99"):
        Scores.read(tmp_path)


def test_scores_of_version_one_say_what_the_headline_is_called_now(tmp_path: Path) -> None:
    (tmp_path / SCORES_FILE).write_text('{"format": "emu-agent scores", "format_version": 1, "headline": {}}')
    with pytest.raises(DatasetError, match="the overall score now"):
        Scores.read(tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / SCORES_FILE).write_text('{"episodes": 3}')
    with pytest.raises(DatasetError, match="no scores"):
        Scores.read(tmp_path)
