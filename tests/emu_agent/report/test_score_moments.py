"""Pictures of a sample in time, and sheets of them."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emu_agent.errors import DatasetError
from emu_agent.evaluation.scores import SavedSample, Scores
from emu_agent.report.evaluation.moments import LARGEST_SIDE, Sheet, load_moments


@pytest.fixture
def sample(scored: Path) -> SavedSample:
    return next(one for one in Scores.read(scored).samples if one.mode == "simulate")


@settings(deadline=None, max_examples=8)
@given(count=st.integers(1, 12), height=st.integers(8, 20), width=st.integers(8, 20))
def test_every_picture_is_found_on_its_sheet(count: int, height: int, width: int) -> None:
    shades = [20 * i for i in range(count)]
    sheet = Sheet.of([np.full((height, width, 3), shade, np.uint8) for shade in shades])
    pixels = np.asarray(Image.open(io.BytesIO(sheet.data)).convert("RGB"))
    assert pixels.shape == (sheet.rows * height, sheet.columns * width, 3)
    for i, shade in enumerate(shades):
        row, column = divmod(i, sheet.columns)
        tile = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert abs(float(np.median(tile)) - shade) < 6


def test_large_pictures_become_smaller_in_their_shape() -> None:
    sheet = Sheet.of([np.zeros((480, 640, 3), np.uint8)])
    with Image.open(io.BytesIO(sheet.data)) as picture:
        assert picture.size == (LARGEST_SIDE, LARGEST_SIDE * 3 // 4)
    assert sheet.address.startswith("data:image/webp;base64,")


def test_the_film_fills_the_time_between_the_frames_compared(scored: Path, sample: SavedSample) -> None:
    moments = load_moments(scored, sample)
    assert [moment.frame for moment in moments] == list(range(sample.frames[-1].frame + 1))
    compared = [moment for moment in moments if moment.compared]
    assert [moment.frame for moment in compared] == [frame.frame for frame in sample.frames]
    for moment, frame in zip(compared, sample.frames, strict=True):
        with Image.open(scored / frame.truth) as truth:
            assert (moment.truth == np.asarray(truth)).all()
    alone = load_moments(scored, replace(sample, video=None))
    assert [moment.frame for moment in alone] == [frame.frame for frame in sample.frames]


def test_the_first_moment_is_what_the_model_saw_and_has_no_difference(
    scored: Path, sample: SavedSample
) -> None:
    first, *later = load_moments(scored, sample)
    assert first.imagined is not None
    assert first.difference is not None
    assert (first.imagined == first.truth).all()
    assert not first.difference.any()
    assert any(moment.difference is not None and moment.difference.any() for moment in later)


def test_a_model_without_pictures_has_no_difference(scored: Path, sample: SavedSample) -> None:
    frames = tuple(replace(frame, imagined=None) for frame in sample.frames)
    moments = load_moments(scored, replace(sample, frames=frames, video=None))
    assert [moment.difference is None for moment in moments] == [False, *[True] * (len(frames) - 1)]


@pytest.mark.parametrize("name", ["samples/none.png", "../../elsewhere.png", "/etc/hostname"])
def test_a_picture_that_is_not_there_or_elsewhere_is_refused(
    scored: Path, sample: SavedSample, name: str
) -> None:
    frames = (replace(sample.frames[0], truth=name), *sample.frames[1:])
    with pytest.raises(DatasetError, match=name.rsplit("/", 1)[-1]):
        load_moments(scored, replace(sample, frames=frames))


def test_a_film_that_cannot_be_read_is_named(scored: Path, sample: SavedSample) -> None:
    (scored / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(DatasetError, match=r"broken\.mp4"):
        load_moments(scored, replace(sample, video="broken.mp4"))
