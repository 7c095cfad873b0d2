"""Action sensitivity: the truth has 1, and what cannot know the action has nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emu_agent.data.columns import OWN
from emu_agent.errors import ConfigError, DatasetError
from emu_agent.evaluation.adapters.persistence import Persistence
from emu_agent.evaluation.adapters.protocol import Abilities, Future, Start
from emu_agent.evaluation.branches import Branches, action_sensitivity, negative_controls, predicted

SIZE, STATES, EACH, CHUNK = 24, 12, 4, 3


def drawn(position: np.ndarray) -> np.ndarray:
    """A bright square at a position on a dark ground."""
    image = np.full((SIZE, SIZE, 3), 40, np.uint8)
    x, y = np.clip(position, 0, SIZE - 5).astype(int)
    image[y : y + 5, x : x + 5] = 220
    return image


class Mover:
    """The world of the branches as a model: the square moves by the sum of the actions."""

    name, abilities = "mover", Abilities(simulate=True, action_dim=2, chunk=CHUNK)

    def __init__(self) -> None:
        self.asked: list[np.ndarray] = []

    def encode(self, start: Start) -> Start:
        return start

    def predict(self, context: Start, steps: int, actions: np.ndarray | None = None) -> Future:
        assert actions is not None
        self.asked.append(actions)
        found = []
        for picture, chunk in zip(context.pictures, actions, strict=True):
            y, x = np.argwhere(picture[..., 0] > 200)[0]
            found.append(drawn(np.array([x, y]) + chunk.sum(axis=0)))
        return Future(pictures=np.stack(found)[:, None])


@pytest.fixture
def branches() -> Branches:
    rng = np.random.default_rng(0)
    at = rng.integers(6, 13, (STATES, 2))
    moves = np.tile([[2, 0], [-2, 0], [0, 2], [0, -2]], (STATES, 1))
    positions = np.repeat(at, EACH, axis=0)
    return Branches(
        before=np.stack([drawn(one) for one in positions]),
        after=np.stack([drawn(a + CHUNK * b) for a, b in zip(positions, moves, strict=True)]),
        actions=np.repeat(moves[:, None], CHUNK, axis=1).astype(np.float32),
        state=np.repeat(np.arange(STATES), EACH),
        kinds=(OWN, "other", "negated", "random") * STATES,
        episode=np.repeat(np.arange(STATES) // 2, EACH),
        instructions=("move",) * (STATES * EACH),
        root=Path("data"),
    )


def test_the_truth_has_one_in_every_figure(branches: Branches) -> None:
    found = action_sensitivity(branches, predicted(Mover(), branches))
    assert [found.skill.mean, found.correlation.mean, found.found.mean] == pytest.approx([1, 1, 1])
    assert (found.found_share, found.chance) == (1, 1 / EACH)
    assert found.value.mean == pytest.approx(1)


@pytest.mark.parametrize(
    ("control", "figures"),
    [
        ("mean_image", ("skill", "correlation", "found")),
        ("median_image", ("skill", "correlation", "found")),
        ("inverted_image", ("skill", "correlation", "found")),
        ("ignores_actions", ("correlation", "found")),
        ("own_future", ("correlation", "found")),
    ],
)
def test_negative_controls_have_nothing_in_what_they_are_meant_to_fool(
    branches: Branches, control: str, figures: tuple[str, ...]
) -> None:
    answers = negative_controls(branches, predicted(Mover(), branches))[control]
    found = action_sensitivity(branches, answers)
    for name in figures:
        assert getattr(found, name).mean <= 1e-9, name


def test_repeating_the_frame_has_no_skill(branches: Branches) -> None:
    found = action_sensitivity(branches, predicted(Persistence(), branches))
    assert found.skill.mean is not None
    assert found.skill.mean <= 0
    assert found.correlation.mean == 0
    assert found.found_share == pytest.approx(1 / EACH)


def test_change_where_there_is_none_costs(branches: Branches) -> None:
    answers = predicted(Mover(), branches)
    ghost = answers.copy()
    ghost[:, :4, :4] = 220
    true, worse = (action_sensitivity(branches, one).skill.mean for one in (answers, ghost))
    assert true is not None
    assert worse is not None
    assert worse < true - 0.2


def test_models_are_asked_in_shuffled_order(branches: Branches) -> None:
    mover = Mover()
    predicted(mover, branches)
    assert not np.array_equal(np.concatenate(mover.asked), branches.actions)


def test_what_cannot_be_asked_is_refused(branches: Branches) -> None:
    blind, other = Mover(), Mover()
    blind.abilities, other.abilities = Abilities(imagine=True), Abilities(simulate=True, action_dim=7)
    with pytest.raises(ConfigError, match="cannot be given actions: action sensitivity cannot be measured"):
        predicted(blind, branches)
    with pytest.raises(
        ConfigError, match=r"actions of 7 numbers, the branches have 2: .* another embodiment"
    ):
        predicted(other, branches)
    single = replace(branches, state=np.arange(STATES * EACH))
    with pytest.raises(DatasetError, match="two or more, but state 0 has 1"):
        single.check()
