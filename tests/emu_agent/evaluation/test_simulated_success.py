import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from emu_agent.evaluation.simulated_success import run_imagined
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
    episodes = run_imagined(Corridor(), policy, seed=7)
    assert policy.seeds == [7]
    assert episodes.solved.tolist() == [True, True, False]
    assert episodes.steps.tolist() == [2, 4, 5]
    np.testing.assert_allclose(episodes.probability, [0.1, 0.2, 0.25])
    assert episodes.to_dict()["success_rate"] == pytest.approx(2 / 3)
