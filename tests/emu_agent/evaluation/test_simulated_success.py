import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from emu_agent.errors import ConfigError
from emu_agent.evaluation.simulated_success import compare_candidates, compare_policies, run_inside
from emu_agent.observation import Observation


class Corridor(gymnasium.vector.VectorEnv):
    """Row i is solved when the sum of its actions reaches i + 1, and given up after five steps."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012
    instruction = "go on"
    num_envs = 3

    def __init__(self) -> None:
        self.action_space = spaces.Box(-1.0, 1.0, (3, 1), np.float32)

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[dict, dict]:
        self.way, self.count = np.zeros(3), 0
        return self._observe(), {"is_success": np.zeros(3, bool)}

    def step(self, actions: np.ndarray) -> tuple:
        self.way, self.count = self.way + actions[:, 0], self.count + 1
        solved = self.way >= np.arange(1, 4)
        late = ~solved & (self.count >= 5)
        return self._observe(), self.way / 10, solved, late, {"is_success": solved}

    def _observe(self) -> dict:
        return {
            "pixels": {"front": np.zeros((3, 4, 4, 3), np.uint8)},
            "agent_pos": np.zeros((3, 2), np.float32),
        }


class Walker:
    def __init__(self, pace: float) -> None:
        self.pace, self.seeds = pace, []

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)

    def select_action(self, observation: Observation) -> torch.Tensor:
        assert observation.instruction == ("go on",) * 3
        return torch.full((3, 1), self.pace)


def test_a_batch_runs_until_every_episode_is_solved_or_given_up() -> None:
    policy = Walker(0.5)
    episodes = run_inside(Corridor(), policy, seed=7)
    assert policy.seeds == [7]
    assert episodes.solved.tolist() == [True, True, False]
    assert episodes.steps.tolist() == [2, 4, 5]
    np.testing.assert_allclose(episodes.probability, [0.1, 0.2, 0.25])
    assert episodes.to_dict()["success_rate"] == pytest.approx(2 / 3)


def test_policies_that_rank_alike_on_both_sides_agree() -> None:
    outcomes = {
        "weak": [False, False, False, True],
        "fair": [True, False, False, True],
        "good": [True, True, False, True],
    }
    same = compare_policies(outcomes, outcomes, draws=5)
    assert (same["pearson"]["value"], same["mmrv"]["value"], same["agreement"]) == (
        pytest.approx(1.0),
        0.0,
        1.0,
    )
    turned = compare_policies(
        outcomes, dict(zip(outcomes, reversed(outcomes.values()), strict=True)), draws=5
    )
    assert turned["spearman"]["value"] == pytest.approx(-1.0)
    assert turned["mmrv"]["value"] == pytest.approx((0.5 + 0.25 + 0.5) / 3)


@pytest.mark.parametrize(
    "other", [{"a": [True]}, {"a": [True, False], "b": [True, True]}, {"b": [True, False]}]
)
def test_both_sides_must_have_played_the_same(other: dict[str, list[bool]]) -> None:
    with pytest.raises(ConfigError, match="same episodes"):
        compare_policies({"a": [True, False]}, other)


def test_candidates_are_ranked_start_by_start() -> None:
    success = {"a": [True, True, False], "b": [False, True, False], "c": [False, True, True]}
    scores = {"a": [0.9, 0.1, 0.3], "b": [0.2, 0.5, 0.9], "c": [0.1, 0.3, 0.2]}
    ranking = compare_candidates(scores, success, draws=5)
    assert ranking["starts"] == 2  # from the second start all succeed
    first, third = 2 / np.sqrt(3 * 2), -2 / np.sqrt(3 * 2)  # tau-b: two of three pairs differ in success
    assert ranking["kendall"]["value"] == pytest.approx((first + third) / 2)
    assert ranking["chosen"]["value"] == pytest.approx(0.5)
    assert ranking["by_chance"]["value"] == pytest.approx(1 / 3)
    best = compare_candidates({k: list(map(float, v)) for k, v in success.items()}, success, draws=5)
    assert (best["kendall"]["value"], best["chosen"]["value"]) == (pytest.approx(1.0), 1.0)


def test_where_all_candidates_do_alike_there_is_nothing_to_choose() -> None:
    ranking = compare_candidates({"a": [0.1], "b": [0.2]}, {"a": [True], "b": [True]}, draws=5)
    assert (ranking["starts"], ranking["kendall"]["value"]) == (0, None)
    with pytest.raises(ConfigError, match="the same episodes on both sides"):
        compare_candidates({"a": [0.1]}, {"b": [True]})
