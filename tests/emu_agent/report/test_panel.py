import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from emu_agent.report.panel import (
    ACCENT,
    CAMERA,
    COLUMN,
    HEIGHT,
    KEYFRAME,
    TRACES,
    WIDTH,
    Box,
    PanelContent,
    draw_line,
    draw_panel,
    wrap,
)


def picture(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def panel(**changes: object) -> np.ndarray:
    content = {
        "task": "toy",
        "actor": "toy policy, imagine adaptive",
        "step": 12,
        "max_steps": 60,
        "camera": "front",
        "pixels": {"front": picture(0), "wrist": picture(1)},
        "instruction": "move the dot onto the target",
        "keyframe": picture(2),
        "subtask_text": "move closer",
        "actions": np.zeros((12, 7), np.float32),
    }
    return draw_panel(PanelContent(**{**content, **changes}))


def differs(one: np.ndarray, other: np.ndarray, box: Box) -> bool:
    return not np.array_equal(box.part(one), box.part(other))


def test_the_panel_has_even_sides_and_keeps_its_size() -> None:
    for shown in (panel(), panel(keyframe=None, pixels={"front": picture(0, 40, 20)})):
        assert shown.shape == (HEIGHT, WIDTH, 3)
    assert HEIGHT % 2 == 0 == WIDTH % 2


def test_each_thing_is_shown_in_its_place_and_nowhere_else() -> None:
    plain = panel()
    for changes, box in (
        ({"pixels": {"front": picture(3), "wrist": picture(1)}}, CAMERA),
        ({"keyframe": picture(3)}, KEYFRAME),
        ({"keyframe": None}, KEYFRAME),
        ({"pixels": {"front": picture(0), "wrist": picture(3)}}, COLUMN),
        ({"subtask_text": "stop"}, COLUMN),
        ({"instruction": "do nothing"}, COLUMN),
        ({"actions": np.ones((12, 7), np.float32)}, TRACES),
    ):
        changed = panel(**changes)
        assert differs(plain, changed, box), changes
        box.part(changed)[:] = box.part(plain)
        np.testing.assert_array_equal(plain, changed, err_msg=str(changes))


def test_the_camera_picture_is_shown_true_to_its_colours() -> None:
    front = np.zeros((32, 32, 3), np.uint8)
    front[:16, :, 0], front[16:, :, 2] = 250, 150
    shown = CAMERA.part(panel(pixels={"front": front}))
    np.testing.assert_array_equal(shown[60, 200], [250, 0, 0])
    np.testing.assert_array_equal(shown[320, 200], [0, 0, 150])


def test_a_new_imagination_frames_the_keyframe_and_fades() -> None:
    def frame(since: int) -> np.ndarray:
        return panel(imagined=[(12 - since, 640.0)])[KEYFRAME.y, KEYFRAME.x]

    def distance(colour: np.ndarray) -> float:
        return float(np.abs(colour.astype(int) - ACCENT).sum())

    np.testing.assert_array_equal(frame(0), ACCENT)
    assert distance(frame(0)) < distance(frame(4)) < distance(frame(8))
    np.testing.assert_array_equal(frame(11), panel()[KEYFRAME.y, KEYFRAME.x])
    assert differs(panel(), panel(imagined=[(3, 640.0)]), TRACES)
    assert not np.array_equal(
        panel(imagined=[(3, 640.0)]), panel(imagined=[(3, 640.0)], reason="low_confidence")
    )


def test_outcome_and_counter_are_in_the_header() -> None:
    header = Box(0, 0, WIDTH, 50)
    shown = [panel(), panel(success=True), panel(ended=True), panel(step=13), panel(actor="random policy")]
    for i, one in enumerate(shown):
        for other in shown[i + 1 :]:
            assert differs(one, other, header)


def test_long_episodes_scroll() -> None:
    actions = np.tile(np.linspace(-1, 1, 400, dtype=np.float32)[:, None], (1, 7))
    late = panel(actions=actions, imagined=[(0, 5.0), (390, 5.0)], step=400)
    forgotten = panel(actions=np.concatenate([np.ones((280, 7), np.float32), actions[280:]]), step=400)
    assert differs(late, forgotten, TRACES)  # the mark of step 390
    np.testing.assert_array_equal(TRACES.part(panel(actions=actions, step=400)), TRACES.part(forgotten))


@pytest.mark.parametrize("action_dim", [1, 2, 14])
def test_other_robots_get_one_lane(action_dim: int) -> None:
    flat, moving = (np.full((12, action_dim), level, np.float32) for level in (0.0, 0.9))
    assert differs(panel(actions=flat), panel(actions=moving), TRACES)


def test_lines_stay_in_their_box_even_for_values_out_of_range() -> None:
    image, box = Image.new("RGB", (100, 60)), Box(20, 20, 60, 20)
    values = np.asarray([-50.0, 50.0] * 60, np.float32)
    draw_line(ImageDraw.Draw(image), box, values, (255, 255, 255))
    drawn = np.array(image).any(axis=-1)
    assert drawn.any()
    rows, columns = np.nonzero(drawn)
    assert rows.min() >= 19
    assert rows.max() <= 41
    assert columns.min() >= 19
    assert columns.max() <= 81


def test_text_is_broken_between_words_and_loses_none() -> None:
    text = "close the gripper around the red cube and lift it"
    lines = wrap(text, 15, 120)
    assert len(lines) > 2
    assert " ".join(lines) == text
    assert all(ImageFont.load_default(15).getlength(line) <= 120 for line in lines)
