from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.data.segments import Segment, segments_of_gripper, segments_of_steps


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
