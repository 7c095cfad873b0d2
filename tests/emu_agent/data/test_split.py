"""An episode is held out by its own seed: growing, cutting and merging move none to the other side."""

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from emu_agent.data.split import key_of, refuse_reserved, split
from emu_agent.errors import DatasetError

SHARES = st.floats(0.05, 0.95)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 50_000), st.integers(40, 400), SHARES)
def test_sides_are_disjoint_and_whole_and_of_the_size_asked_for(
    first: int, count: int, share: float
) -> None:
    training, held_out = split(range(first, first + count), share)
    assert sorted([*training, *held_out]) == list(range(count))
    assert abs(len(held_out) - share * count) <= 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 50_000), min_size=60, max_size=90, unique=True), st.randoms(), SHARES)
def test_neither_growing_nor_order_nor_cutting_moves_an_episode(
    seeds: list[int], random: np.random.Generator, share: float
) -> None:
    def unseen(part: list[int]) -> set[int]:
        return {part[episode] for episode in split(part, share).held_out}

    try:
        whole = unseen(seeds)
    except DatasetError:  # seeds of one side only
        reject()
    shuffled = list(seeds)
    random.shuffle(shuffled)
    assert unseen(shuffled) == whole
    some = seeds[: len(seeds) * 2 // 3]
    try:
        assert unseen(some) == whole.intersection(some)
    except DatasetError:  # nothing of a side is left
        assert len(whole.intersection(some)) in (0, len(some))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(20, 60))
def test_each_task_gives_its_share_wherever_it_stands(tasks: int, episodes: int) -> None:
    seeds = list(range(episodes)) * tasks
    _, held_out = split(seeds, 0.1)
    per_task = np.bincount([episode // episodes for episode in held_out], minlength=tasks)
    assert (per_task == per_task[0]).all()
    assert abs(per_task[0] - 0.1 * episodes) <= 2


def test_an_episode_without_a_seed_is_told_by_what_it_holds() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 5, 3)).astype(np.float32)
    keys = [key_of("go", one) for one in rows]
    assert len(set(keys)) == 200
    assert keys[7] == key_of("go", rows[7].astype(np.float64)) != key_of("stop", rows[7])
    assert 10 <= len(split(keys, 0.1).held_out) <= 32


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(DatasetError, match=f"held_out={share} must be above 0 and below 1"):
        split(range(10), share)


def test_too_few_episodes_are_refused_with_a_share_that_would_do() -> None:
    with pytest.raises(DatasetError, match=r"4 episodes cannot be split.*0 would be held out") as caught:
        split(range(4), 0.1)
    share = float(str(caught.value).rpartition("held_out=")[2])
    assert len(split(range(4), share).held_out) == 1
    with pytest.raises(DatasetError, match="1 episodes cannot be split with held_out=0.5"):
        split([0], 0.5)


@pytest.mark.parametrize(
    ("seeds", "words"), [([3, 50_000, 59_999], r"validation seeds \(2"), ([100_000], "test seeds")]
)
def test_seeds_that_choose_or_test_are_not_trained_on(seeds: list[int], words: str) -> None:
    with pytest.raises(DatasetError, match=f"shelf holds {words}.*training seeds are below 50000"):
        refuse_reserved(seeds, "shelf")
    refuse_reserved([0, 49_999, 60_000], "shelf")
