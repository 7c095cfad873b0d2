"""Charts: laws of their scales, and drawings that are well formed."""

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.report.evaluation.chart import (
    Line,
    Mark,
    Row,
    Scale,
    interval_rows,
    line_chart,
    number,
    round_step,
    scatter,
    spread,
)

numbers = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)
law = settings(deadline=None, max_examples=40)


@law
@given(st.lists(numbers, min_size=1, max_size=6))
def test_a_scale_has_room_for_every_value_and_few_round_ticks(values: list[float]) -> None:
    scale = Scale.over(values, 300.0, 20.0)
    tolerance = 1e-6 * (scale.high - scale.low)
    assert scale.low - tolerance <= min(values)
    assert max(values) <= scale.high + tolerance
    assert 2 <= len(scale.ticks) <= 7
    assert scale.ticks[0] == pytest.approx(scale.low)
    assert scale.ticks[-1] == pytest.approx(scale.high)
    pixels = [scale(value) for value in sorted(values)]
    assert pixels == sorted(pixels, reverse=True), "more is higher up"
    assert all(20 - 1e-6 <= pixel <= 300 + 1e-6 for pixel in pixels)


@law
@given(st.floats(1e-9, 1e9))
def test_a_round_step_is_the_next_one(least: float) -> None:
    step = round_step(least)
    assert least * (1 - 1e-6) <= step <= 2.5 * least * (1 + 1e-6)
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"), (24.31, "24.3"), (0.12345, "0.123"), (-0.5, "−0.5"), (100.0, "100"), (1234.6, "1235"),
        (0.000004, "0"), (-1e-9, "0"), (None, "–"), (float("nan"), "–"), (12.0, "12"), (100.4, "100"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_an_interval_that_is_not_known_is_left_out() -> None:
    assert spread(1.5, None, None) == "1.5"
    assert spread(1.5, 1.0, 2.0) == "1.5 (1 to 2)"


def test_a_line_chart_draws_every_mark_where_it_belongs() -> None:
    marks = (Mark(x=8.0, y=1.0, low=0.5, high=1.5, note="a < b"), Mark(x=16.0, y=3.0, low=2.0, high=4.0))
    lines = [Line(name="model", style="model", marks=marks, band=True)]
    drawing = line_chart(lines, label='say "it" & go', axes=("frames", "dB"), size=(360, 230))
    root = ElementTree.fromstring(drawing)
    assert root.get("aria-label") == 'say "it" & go'
    first, second = root.findall("circle")
    assert float(first.get("cx", 0)) < float(second.get("cx", 0))
    assert float(first.get("cy", 0)) > float(second.get("cy", 0)), "more is higher up"
    assert first.findtext("title") == "a < b"
    assert [path.get("class") for path in root.findall("path") if "band" in path.get("class", "")]


def test_a_line_with_one_mark_and_one_without_intervals_can_be_drawn() -> None:
    single = Line(name="a", style="model", marks=(Mark(x=5.0, y=1.0, low=0.0, high=2.0),), band=True)
    bare = Line(name="b", style="truth", marks=(Mark(x=5.0, y=1.0), Mark(x=6.0, y=1.0)))
    for lines in ([single], [bare], [single, bare]):
        root = ElementTree.fromstring(line_chart(lines, label="", axes=("", ""), size=(300, 200)))
        assert len(root.findall("circle")) == sum(len(line.marks) for line in lines)


def test_the_diagonal_of_a_scatter_is_where_both_axes_agree() -> None:
    marks = [Mark(x=value, y=value, low=value, high=value) for value in (0.0, 0.4, 1.0)]
    root = ElementTree.fromstring(scatter(marks, label="", axes=("x", "y"), names=["a", "b", "c"]))
    start, end = (tuple(map(float, part.split())) for part in _diagonal(root).removeprefix("M").split("L"))
    for circle in root.findall("circle"):
        x, y = float(circle.get("cx", 0)), float(circle.get("cy", 0))
        share = (x - start[0]) / (end[0] - start[0])
        assert y == pytest.approx(start[1] + share * (end[1] - start[1]), abs=0.2)


def test_rows_stand_below_each_other_and_landmarks_at_their_numbers() -> None:
    rows = [Row(name=n, style="model", value=v, low=v - 0.1, high=None) for n, v in (("a", 0.0), ("b", 1.0))]
    root = ElementTree.fromstring(interval_rows(rows, label="", landmarks=((0.0, "none"), (1.0, "all"))))
    circles = [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in root.findall("circle")]
    lines = [path.get("d", "") for path in root.findall("path") if path.get("class") == "landmark"]
    assert circles[0][1] < circles[1][1]
    for (x, _), line in zip(circles, lines, strict=True):
        assert float(line.removeprefix("M").split()[0]) == pytest.approx(x, abs=0.1)


def test_names_of_points_at_one_place_do_not_cover_each_other() -> None:
    marks = [Mark(x=0.9, y=0.9, left=0.8, right=1.0)] * 5
    root = ElementTree.fromstring(scatter(marks, label="", axes=("x", "y"), names=list("abcde")))
    heights = sorted(float(text.get("y", 0)) for text in root.findall("text") if text.get("class") == "name")
    assert all(lower - upper >= 12 for upper, lower in pairwise(heights))
    assert len({text.text for text in root.findall("text") if text.get("class") == "name"}) == 5


def _diagonal(root: ElementTree.Element) -> str:
    return next(path.get("d", "") for path in root.findall("path") if path.get("class") == "diagonal")
