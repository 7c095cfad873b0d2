import numpy as np
import pytest

from emu_agent.evaluation.metrics.objects import (
    Palette,
    find_object,
    object_permanence,
    object_scores,
    object_track,
)

SIDE = 64
BALL, ARM, GROUND = (20, 60, 200), (90, 90, 90), (240, 240, 235)


def scene(ball: tuple[int, int] | None, arm: int, second: tuple[int, int] | None = None) -> np.ndarray:
    """A ball on the ground (top, left), and an arm in two pieces that always comes from above."""
    picture = np.full((SIDE, SIDE, 3), GROUND, np.uint8)
    picture[:10, arm : arm + 20] = ARM
    picture[14:20, arm + 4 : arm + 20] = ARM
    for place in (ball, second):
        if place is not None:
            picture[place[0] : place[0] + 6, place[1] : place[1] + 6] = BALL
    return picture


@pytest.fixture(scope="module")
def palette() -> Palette:
    places = np.random.default_rng(0).integers(24, 56, (12, 2))
    before = np.stack([scene((int(a), int(b)), 0) for a, b in places])
    after = np.stack([scene((int(a) - 3, int(b)), 30) for a, b in places])
    found = find_object(before, after)
    assert found is not None
    return found


def test_the_object_is_what_is_in_one_piece_and_at_changing_places(palette: Palette) -> None:
    picture = scene((30, 40), 10)
    assert (palette.mask(picture) == (picture == BALL).all(axis=2)).all()


def test_without_an_object_none_is_found() -> None:
    before, after = (np.stack([scene(None, arm)] * 8) for arm in (0, 30))
    assert find_object(before, after) is None
    assert find_object(before, before) is None


def test_the_track_is_the_centre_and_stays_where_it_was_last_seen(palette: Palette) -> None:
    frames = np.stack([scene((30, 40), 0), scene((20, 44), 0), scene(None, 0)])
    track = object_track(palette, frames) * SIDE / 100
    assert track[0] == pytest.approx([42.5, 32.5])
    assert track[1] == pytest.approx([46.5, 22.5])
    assert (track[2] == track[1]).all()
    assert np.isnan(object_track(palette, frames[2:])).all()


def test_paths_are_compared_in_percent_of_the_width(palette: Palette) -> None:
    now = scene((30, 30), 0)[None]
    truth = np.stack([scene((30, 34), 0), scene((30, 38), 0)])[None]
    lagging = np.stack([scene((30, 32), 0), scene((30, 34), 0)])[None]
    own, other = object_scores(palette, truth, truth, now), object_scores(palette, lagging, truth, now)
    assert own.final.tolist() == [[0, 0]]
    assert other.final[0] == pytest.approx([200 / SIDE, 400 / SIDE])
    assert other.ndtw[0, 1] < own.ndtw[0, 1] == 1
    unseen = object_scores(palette, truth, truth, scene(None, 0)[None])
    assert np.isnan(unseen.final).all()


def test_permanence_falls_when_the_object_vanishes_or_doubles(palette: Palette) -> None:
    truth, nothing = scene((30, 20), 0), scene(None, 0)
    doubled = scene((30, 20), 0, second=(50, 50))
    half = truth.copy()
    half[30:33, 20:26] = GROUND
    imagined = np.stack([truth, nothing, doubled, half, nothing])
    true = np.stack([truth, truth, truth, truth, nothing])
    values = object_permanence(palette, imagined, true)
    assert values[:4] == pytest.approx([1, 0, 0.5, 0.5])
    assert np.isnan(values[4])
    assert object_permanence(palette, true, imagined)[:4] == pytest.approx(values[:4])
