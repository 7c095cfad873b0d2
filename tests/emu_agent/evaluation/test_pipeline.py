"""The whole scorer on the tiny world: verdicts that are known, kills, gaps, and the same bytes twice."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest

from emu_agent.errors import ConfigError, DatasetError
from emu_agent.evaluation.adapters.persistence import Persistence
from emu_agent.evaluation.adapters.protocol import WorldModelAdapter
from emu_agent.evaluation.pipeline import ScoreConfig, Scorer
from emu_agent.evaluation.recordings import Source
from emu_agent.evaluation.samples import SampleConfig
from emu_agent.evaluation.scores import KEY_COLUMNS, SAMPLES_FILE, SCORES_FILE, Scores

type Make = Callable[..., Scorer]

CONFIG = ScoreConfig(samples=SampleConfig(horizons=(2, 4), starts=2, steps=2), held_out=0.5)


@pytest.fixture
def source(tiny_data: ModuleType, scored_world: ModuleType) -> Source:
    return scored_world.MemorySource(scored_world.recordings(tiny_data))


def scorer(source: Source, adapter: WorldModelAdapter | None = None, config: ScoreConfig = CONFIG) -> Scorer:
    return Scorer(source, adapter or Persistence(), None, config)


def score(folder: Path, *args: object) -> Scores:
    scores, _, _ = scorer(*args).run(folder)  # type: ignore[arg-type]
    scores.write(folder)
    return scores


@pytest.fixture(scope="module")
def persistence(
    tiny_data: ModuleType, scored_world: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder in which persistence was scored."""
    folder = tmp_path_factory.mktemp("persistence")
    score(folder, scored_world.MemorySource(scored_world.recordings(tiny_data)))
    return folder


def test_persistence_has_no_skill_and_negative_controls_have_none(persistence: Path) -> None:
    scores = Scores.read(persistence)
    assert scores.scored == (1, 3, 4)
    whole = {p.candidate: p.value for p in scores.overall.curve if (p.mode, p.step) == ("simulate", 0)}
    assert scores.overall.skill == whole["model"] == whole["frozen_frame"]
    assert whole["model"].mean is not None
    assert whole["model"].mean <= 0
    assert whole["truth"].mean == 1
    checks = {(check.control, check.figure) for check in scores.overall.negative_checks if check.passed}
    names = ("frozen_frame", "mean_image", "median_image", "inverted_image")
    assert checks == {(name, "skill, simulate") for name in names}
    assert (scores.overall.value.mean, scores.overall.action_sensitivity) == (None, None)
    assert "whether it heeds actions was not measured" in scores.overall.verdict
    assert any("overall score" in one.metrics for one in scores.missing)
    assert whole["model"].low is None, "of three episodes there is no interval"


def test_a_metric_that_could_not_be_measured_is_marked(persistence: Path) -> None:
    metrics = {metric.name: metric for metric in Scores.read(persistence).metrics}
    assert metrics["region_psnr"].applicable
    assert not metrics["lite0_distance"].applicable
    assert metrics["lite0_distance"].why_not == "nothing could be measured"


@pytest.mark.slow
def test_a_model_that_listens_to_actions_is_told_from_one_that_does_not(
    source: Source, scored_world: ModuleType, tmp_path: Path
) -> None:
    scores = score(tmp_path, source, scored_world.Rule(scored_world.brighter_with_action))
    whole = {p.candidate: p.value for p in scores.overall.curve if (p.mode, p.step) == ("simulate", 0)}
    assert whole["model"].mean != whole["shuffled_actions"].mean


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes(persistence: Path, source: Source, tmp_path: Path) -> None:
    score(tmp_path, source)
    for file in (SCORES_FILE, SAMPLES_FILE):
        assert (tmp_path / file).read_bytes() == (persistence / file).read_bytes()


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    source: Source, scored_world: ModuleType, tmp_path: Path
) -> None:
    class Killed(scored_world.Rule):
        left = 4

        def predict(self, *args: object) -> object:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().predict(*args)

    rule = scored_world.brighter_with_action
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "killed", source, Killed(rule))
    assert len(list((tmp_path / "killed" / "parts").rglob("*.parquet"))) == 2
    model = scored_world.Rule(rule)
    score(tmp_path / "killed", source, model)
    assert model.asked == 2, "only the last episode is asked again, with its own actions and with others"
    score(tmp_path / "whole", source, scored_world.Rule(rule))
    for file in (SCORES_FILE, SAMPLES_FILE):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.slow
def test_parts_of_other_settings_are_not_used(
    source: Source, scored_world: ModuleType, tmp_path: Path
) -> None:
    score(tmp_path, source)
    other = ScoreConfig(samples=SampleConfig(horizons=(2,), starts=1, steps=1), held_out=0.5)
    scores = score(tmp_path, source, Persistence(), other)
    assert scores.settings["samples"]["starts"] == 1
    assert {point.step for point in scores.overall.curve} == {0, 1}


def test_rows_are_one_per_sample_step_and_candidate(persistence: Path) -> None:
    table = pq.read_table(persistence / SAMPLES_FILE)
    assert set(KEY_COLUMNS) < set(table.column_names)
    names = ("episode", "start", "mode", "step", "candidate")
    keys = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    assert len(keys) == len(set(keys))
    truth = np.array(table["candidate"].to_pylist()) == "truth"
    assert (table["psnr"].to_numpy()[truth] == 100).all()


@pytest.mark.slow
def test_bad_episodes_are_named_and_the_others_scored(
    tiny_data: ModuleType, scored_world: ModuleType, tmp_path: Path
) -> None:
    source = scored_world.MemorySource(scored_world.recordings(tiny_data), bad=(4,))
    scores = score(tmp_path, source)
    assert scores.scored == (1, 3)
    assert [(one.episode, one.reason) for one in scores.skipped] == [("4", "it is empty")]


def test_no_good_episode_is_an_error_that_says_why(
    tiny_data: ModuleType, scored_world: ModuleType, tmp_path: Path
) -> None:
    source = scored_world.MemorySource(scored_world.recordings(tiny_data), bad=(1, 3, 4))
    with pytest.raises(DatasetError, match="episode 3: it is empty"):
        score(tmp_path, source)


@pytest.mark.slow
def test_what_a_dataset_lacks_is_named_with_its_rows(
    tiny_data: ModuleType, scored_world: ModuleType, tmp_path: Path
) -> None:
    recordings = [scored_world.without(one, "actions") for one in scored_world.recordings(tiny_data)]
    source = scored_world.MemorySource(recordings, holds=frozenset({"steps"}))
    scores = score(tmp_path, source)
    missing = {one.what: one.metrics for one in scores.missing}
    assert "actions" in missing
    assert "step_accuracy" in missing["texts"], "persistence has no words"
    assert {point.mode for point in scores.overall.curve} == {"imagine"}
    assert scores.overall.skill.mean is not None
    assert scores.overall.skill.mean <= 0


@pytest.mark.parametrize(
    ("abilities", "complaint"),
    [
        ({"picture_size": (64, 64)}, "32 x 32 pixels"),
        ({"chunk": 8}, "chunks of 8"),
        ({"action_dim": 7}, "7 numbers"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_any_work(
    source: Source, scored_world: ModuleType, abilities: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    model = scored_world.Rule(scored_world.brighter_with_action, **abilities)
    with pytest.raises(ConfigError, match=complaint):
        score(tmp_path, source, model)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"horizons": (8, 20)}, "twice"), ({"horizons": ()}, "twice"), ({"starts": 0}, "starts=0")],
)
def test_nonsense_is_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        SampleConfig(**settings)  # type: ignore[arg-type]


def test_episodes_are_spread_over_those_held_out(source: Source) -> None:
    config = ScoreConfig(held_out=1.0, episodes=3)
    assert config.choose(source.facts) == [0, 2, 4]
