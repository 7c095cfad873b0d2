import pytest

from emu_agent.errors import ConfigError, UnknownNameError
from emu_agent.official.presets import (
    ASPECT_GRIDS,
    TASK_PRESETS,
    aspect_grid,
    generation_settings,
    size_grid,
    task_preset,
)
from emu_agent.tokens.picture import AREA_INTERLEAVED, AREA_SINGLE
from emu_agent.tokens.prompts import TEMPLATES
from emu_agent.tokens.sequence import ImageGrid

PUBLISHED = {
    # task: guidance, new tokens, area, image top-k, text top-k, top-p, temperature
    "t2i": (5.0, 5120, 1_048_576, 5120, 1024, 0.9, 1.0),
    "x2i": (3.0, 5120, 1_048_576, 5120, 1024, 0.9, 1.0),
    "howto": (3.0, 32_768, 518_400, 10_240, 200, 0.8, 0.7),
    "story": (3.0, 32_768, 518_400, 10_240, 1024, 0.9, 1.0),
    "explore": (3.0, 32_768, 518_400, 5120, 200, 0.5, 0.7),
}


@pytest.mark.parametrize("task", PUBLISHED)
def test_settings_are_the_published_ones(task: str) -> None:
    preset = task_preset(task)
    made, text = preset.generation, preset.generation.text
    found = (made.guidance_scale, made.max_new_tokens, preset.area, made.image.top_k)
    assert (*found, text.top_k, text.top_p, text.temperature) == PUBLISHED[task]
    assert (made.image.top_p, made.image.temperature, made.grid) == (1.0, 1.0, None)


def test_every_task_has_a_prompt() -> None:
    assert set(TASK_PRESETS) == set(TEMPLATES) - {"simulate"}


@pytest.mark.parametrize(
    ("aspect", "length"),
    [("4:3", 4077), ("21:9", 4025), ("16:9", 4049), ("3:2", 4115), ("1:1", 4167), ("3:4", 4095),
     ("9:16", 4087), ("2:3", 4141)],
)  # fmt: skip
def test_published_sizes_have_the_published_lengths(aspect: str, length: int) -> None:
    grid = aspect_grid(aspect, AREA_SINGLE)
    assert grid is not None
    assert grid.block_length == length


@pytest.mark.parametrize("aspect", ASPECT_GRIDS)
@pytest.mark.parametrize("area", [AREA_SINGLE, AREA_INTERLEAVED, 262_144])
def test_aspects_keep_ratio_and_area(aspect: str, area: int) -> None:
    width, height = map(int, aspect.split(":"))
    grid = aspect_grid(aspect, area)
    assert grid is not None
    assert grid.cols / grid.rows == pytest.approx(width / height, rel=0.05)
    assert grid.num_codes * 256 == pytest.approx(area, rel=0.05)


def test_a_size_is_given_height_first() -> None:
    assert size_grid("512x768") == ImageGrid(32, 48)
    for size in ("512", "512*768", "0x16", "-16x16", "x"):
        with pytest.raises(ConfigError, match="must be height and width in pixels"):
            size_grid(size)
    with pytest.raises(ConfigError, match="both sides must be multiples of 16, for example 512x768"):
        size_grid("510x770")


def test_who_decides_the_size() -> None:
    t2i, x2i = task_preset("t2i"), task_preset("x2i")
    assert generation_settings(t2i, 0).grid == ImageGrid(55, 73)
    assert generation_settings(t2i, 0, aspect="auto").grid is None
    assert generation_settings(t2i, 0, aspect="1:1").grid == ImageGrid(64, 64)
    assert generation_settings(x2i, 2).grid is None
    assert generation_settings(x2i, 2, size="32x48").grid == ImageGrid(2, 3)
    assert generation_settings(task_preset("story"), 0, aspect="1:1").grid == ImageGrid(45, 45)
    with pytest.raises(ConfigError, match="not both"):
        generation_settings(t2i, 0, size="32x48", aspect="1:1")
    with pytest.raises(UnknownNameError, match="no aspect called '5:4'"):
        generation_settings(t2i, 0, aspect="5:4")


def test_what_a_caller_wants_replaces_the_published_value() -> None:
    made = generation_settings(task_preset("howto"), 0, guidance_scale=2.0, max_new_tokens=100)
    assert (made.guidance_scale, made.max_new_tokens) == (2.0, 100)
    assert made.text == task_preset("howto").generation.text
