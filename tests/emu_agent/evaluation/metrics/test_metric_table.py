from pathlib import Path

import pytest

from emu_agent.evaluation.metrics.table import METRICS, Metric

PAGE = Path(__file__).parents[4] / "docs" / "scoring-metrics.md"
HEADER = "| metric | unit | better | needs | what it says | source |\n|---|---|---|---|---|---|\n"


def table(group: str) -> str:
    """The rows of one group as they stand in docs/scoring-metrics.md."""
    rows = [metric for metric in METRICS.values() if metric.group == group]
    return HEADER + "\n".join(
        f"| `{row.name}` | {row.unit} | {row.direction} | {', '.join(row.needs)} "
        f"| {row.meaning} | {row.source} |"
        for row in rows
    )


@pytest.mark.parametrize("group", ["pictures", "language"])
def test_the_page_shows_the_table(group: str) -> None:
    assert table(group) in PAGE.read_text(encoding="utf-8"), f"put this into {PAGE.name}:\n{table(group)}"


def test_names_are_keys() -> None:
    assert [metric.name for metric in METRICS.values()] == list(METRICS)
    assert all(name.isidentifier() for name in METRICS)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_the_best_value_lies_at_the_end_that_the_direction_names(metric: Metric) -> None:
    worse = metric.best - 1 if metric.direction == "higher" else metric.best + 1
    assert metric.advantage(metric.best, worse) == 1
    assert metric.advantage(worse, metric.best) == -1
