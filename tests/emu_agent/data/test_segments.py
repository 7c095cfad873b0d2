from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.data.segments import (
    Segment,
    segments_of_gripper,
    segments_of_index,
    segments_of_rows,
    segments_of_steps,
)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_segments_cover_an_episode_and_carry_its_steps(steps: list[str]) -> None:
    segments = segments_of_steps(steps)
    assert [segment.text for segment in segments for _ in range(segment.start, segment.end)] == steps
    assert all(a.text != b.text for a, b in pairwise(segments))


def test_a_step_that_is_followed_by_an_earlier_one_was_broken_off() -> None:
    segments = segments_of_steps([*"aabbaabbcc"])
    assert [(s.text, s.completed) for s in segments] == [
        ("a", True), ("b", False), ("a", True), ("b", True), ("c", True),
    ]  # fmt: skip


def test_the_last_step_of_a_failure_was_not_completed() -> None:
    segments = segments_of_steps([*"aabb"], success=False)
    assert [(s.text, s.completed) for s in segments] == [("a", True), ("b", False)]


def test_the_keyframe_is_the_first_frame_of_the_next_step_or_the_last_of_the_episode() -> None:
    first, last = segments_of_steps([*"aab"])
    assert first.keyframe(3) == 2
    assert last.keyframe(3) == 2


@pytest.mark.parametrize(("opened", "closed"), [(-1.0, 1.0), (0.0, 1.0), (5.0, 80.0), (100.0, 0.0)])
def test_a_gripper_turns_in_any_units(opened: float, closed: float) -> None:
    gripper = np.array([opened] * 4 + [closed] * 5, np.float32)
    segments = segments_of_gripper(gripper, "stack the cups", (opened + closed) / 2)
    assert [(segment.start, segment.end) for segment in segments] == [(0, 4), (4, 9)]


def test_without_steps_the_gripper_and_a_horizon_cut() -> None:
    gripper = np.array([-1.0] * 5 + [1.0] * 25, np.float32)
    segments = segments_of_gripper(gripper, "stack the cups", horizon=20)
    assert segments == [
        Segment(0, 5, "stack the cups", True),
        Segment(5, 25, "stack the cups", True),
        Segment(25, 30, "stack the cups", True),
    ]


def rows_of(*changes: tuple[float, str]) -> list[dict[str, object]]:
    return [{"style": "subtask", "content": text, "timestamp": time} for time, text in changes]


def ends_of(segments: list[Segment]) -> list[tuple[int, str, bool]]:
    return [(segment.end, segment.text, segment.completed) for segment in segments]


def test_an_index_that_grows_is_progress_whatever_the_words() -> None:
    times = np.arange(8) / 20
    rows = rows_of((0.0, "grasp"), (0.1, "place"), (0.2, "grasp"), (0.3, "place"))
    segments = segments_of_index(np.array([0, 0, 1, 1, 2, 2, 3, 3]), rows, times)
    assert ends_of(segments) == [(2, "grasp", True), (4, "place", True), (6, "grasp", True), (8, "place", True)]


def test_an_index_that_goes_back_means_broken_off() -> None:
    times = np.arange(6) / 20
    rows = rows_of((0.0, "grasp"), (0.1, "place"), (0.2, "grasp"))
    segments = segments_of_index(np.array([0, 0, 1, 1, 0, 0]), rows, times, success=False)
    assert ends_of(segments) == [(2, "grasp", True), (4, "place", False), (6, "grasp", False)]


def test_without_an_index_every_row_is_the_next_subtask_but_not_in_old_data_of_ours() -> None:
    times, rows = np.arange(6) / 20, rows_of((0.0, "a"), (0.1, "b"), (0.2, "a"))
    assert [s.completed for s in segments_of_rows(rows, times)] == [True, True, True]
    assert [s.completed for s in segments_of_rows(rows, times, by_text=True)] == [True, False, True]
    assert [s.end for s in segments_of_rows(rows_of((0.0, "a"), (0.1, "a")), times)] == [2, 6]


@given(st.lists(st.floats(-0.02, 0.02), min_size=40, max_size=40), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_rows_find_their_frames_when_time_stamps_tremble(jitter: list[float], shift: int) -> None:
    times = shift + np.arange(40) / 20 + np.array(jitter)
    rows = rows_of(*((shift + t / 20, text) for t, text in ((0, "a"), (12, "b"), (31, "c"))))
    segments = segments_of_rows(rows, times)
    assert [s.text for s in segments] == ["a", "b", "c"]
    assert all(abs(s.start - wanted) <= 1 for s, wanted in zip(segments, (0, 12, 31), strict=True))


def test_what_is_annotated_late_or_not_at_all_takes_no_other_words() -> None:
    times = np.arange(10) / 20
    assert ends_of(segments_of_rows(rows_of((0.2, "a"), (0.35, "b")), times)) == [(7, "a", True), (10, "b", True)]
    bad = [*rows_of((float("nan"), "x"), (0.0, "a")), {"style": "subtask", "content": None, "timestamp": 0.1}]
    assert [s.text for s in segments_of_rows(bad, times)] == ["a"]
    assert segments_of_rows([{"style": "plan", "content": "a", "timestamp": 0.0}], times) == []
