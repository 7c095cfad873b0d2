"""From rows to verdicts, on rows whose verdict is known."""

import numpy as np
import pyarrow as pa
import pytest

from emu_agent.evaluation.metrics.table import METRICS
from emu_agent.evaluation.parts import SCHEMA
from emu_agent.evaluation.scores import MetricScores
from emu_agent.evaluation.summary import group, summarize_metric

EPISODES, STARTS = 8, 3


def table(values: dict[str, float], noise: float = 0.1, metric: str = "psnr") -> pa.Table:
    """One step of `simulate`; what a candidate gets, with noise that all candidates of a sample share."""
    generator = np.random.default_rng(0)
    rows = []
    for episode in range(EPISODES):
        for start in range(STARTS):
            shared = generator.normal(0, 5)
            for candidate, value in values.items():
                number = value + shared + generator.normal(0, noise)
                rows.append(
                    {"episode": episode, "start": start, "mode": "simulate", "step": 1, "frames": 8,
                     "candidate": candidate, metric: number}
                )  # fmt: skip
    return pa.Table.from_pylist(rows[::-1], schema=SCHEMA)


def summary(values: dict[str, float], noise: float = 0.1, metric: str = "psnr") -> MetricScores:
    return summarize_metric(METRICS[metric], group(table(values, noise, metric)))


def test_a_control_is_compared_sample_by_sample() -> None:
    scores = summary({"model": 20.0, "truth": 30.0, "blur": 29.0})
    assert scores.applicable
    (check,) = scores.checks
    assert check.below
    assert check.difference.mean == pytest.approx(1.0, abs=0.1)
    assert check.difference.low is not None
    assert check.difference.low > 0.9, "what all candidates of a sample share must not widen the interval"
    assert (check.difference.episodes, check.difference.samples) == (EPISODES, EPISODES * STARTS)


def test_a_control_as_good_as_the_truth_makes_the_metric_useless() -> None:
    scores = summary({"model": 20.0, "truth": 30.0, "blur": 30.0, "frozen_frame": 10.0})
    assert not scores.applicable
    assert scores.why_not == "not ranked below the truth on this dataset: blur (simulate)"


@pytest.mark.parametrize(("metric", "applicable"), [("psnr", False), ("lite0_distance", True)])
def test_better_is_the_way_that_the_metric_points(metric: str, applicable: bool) -> None:
    assert summary({"model": 2.0, "truth": 1.0, "blur": 3.0}, metric=metric).applicable is applicable


def test_without_a_control_no_verdict_is_given() -> None:
    scores = summary({"model": 2.0, "truth": 1.0})
    assert scores.why_not == "there is no control to check it with"


def test_metrics_of_words_are_not_judged_by_controls_that_leave_the_words() -> None:
    scores = summary({"model": 0.5, "truth": 1.0, "blur": 1.0, "frozen_frame": 0.2}, metric="step_accuracy")
    assert {check.control for check in scores.checks} == {"frozen_frame"}
    assert scores.applicable


def test_curves_hold_each_step_and_all_together() -> None:
    points = {(p.candidate, p.step): p for p in summary({"model": 20.0, "truth": 30.0}).curve}
    assert set(points) == {("model", 0), ("model", 1), ("truth", 0), ("truth", 1)}
    assert points["model", 1].frames == 8
    assert points["truth", 0].value.episodes == EPISODES
