from pathlib import Path
from types import ModuleType

import gymnasium
import numpy as np
import pytest
import torch
from emu_policies import ImaginationPolicy, RandomPolicy
from emu_policies.world_model_env.rollout_source import (
    open_world,
    recorded_starts,
    reset_starts,
    standing_still,
)
from emu_policies.world_model_env.state_estimator import StateEstimator, StateEstimatorConfig
from emu_policies.world_model_env.world_model_env import WorldEnvConfig, WorldModelEnv, WristBank

from emu_agent.errors import ConfigError, UnknownNameError
from emu_agent.evaluation.simulated_success import run_imagined
from emu_agent.tokens.action import ActionBins

CONFIG = StateEstimatorConfig(
    stride=2, num_cells=4, code_dim=8, proprio_dim=2, action_dim=3, wrist_side=4, wrist_dim=6
)


@pytest.fixture
def world(tiny_agent: ModuleType, tiny_data: ModuleType, tmp_path: Path) -> WorldModelEnv:
    engine = tiny_agent.build_engine(ActionBins((-1.0,) * 3, (1.0,) * 3, 8))
    frames = tiny_data.frames(tmp_path, [tiny_data.demonstration(seed) for seed in range(3)])
    torch.manual_seed(0)
    estimator = StateEstimator(CONFIG).eval()
    torch.nn.init.constant_(estimator.solved.bias, -9.0)
    config = WorldEnvConfig(camera="front", chunk=4, max_steps=8)
    bank = WristBank(frames, "wrist", range(2), estimator)
    starts = recorded_starts(frames, config, range(3))
    return WorldModelEnv(engine, estimator, bank, starts, standing_still(frames), config)


def test_it_begins_with_what_was_really_seen(world: WorldModelEnv) -> None:
    raw, info = world.reset()
    np.testing.assert_array_equal(raw["pixels"]["front"], world._starts.pictures)
    np.testing.assert_array_equal(raw["agent_pos"], world._starts.proprio)
    assert not info["is_success"].any()
    assert world.observation_space.contains(raw)


def test_a_frame_comes_with_every_stride_from_a_chunk_before(
    world: WorldModelEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    simulate = world._engine.simulate

    def watched(codes: torch.Tensor, actions: torch.Tensor) -> tuple:
        asked.append((codes, actions[0, :, 0].tolist()))
        return simulate(codes, actions)

    monkeypatch.setattr(world._engine, "simulate", watched)
    world.reset()
    for action in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        world.step(np.full((3, 3), action, np.float32))
    still = world._hold[0].item()
    expected = [[still, still, 0.1, 0.2], [0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.5, 0.6]]
    assert [actions for _, actions in asked] == [pytest.approx(row) for row in expected]
    assert torch.equal(asked[0][0], asked[1][0])  # the second frame too is a chunk away from the start


def test_between_two_frames_nothing_moves(world: WorldModelEnv) -> None:
    first, _ = world.reset()
    between, *_ = world.step(np.ones((3, 3), np.float32))
    np.testing.assert_array_equal(first["pixels"]["front"], between["pixels"]["front"])
    np.testing.assert_array_equal(first["agent_pos"], between["agent_pos"])
    after, *_ = world.step(np.ones((3, 3), np.float32))
    assert not np.array_equal(first["agent_pos"], after["agent_pos"])


def test_it_is_given_up_in_time_and_says_the_same_again(world: WorldModelEnv) -> None:
    runs = [run_imagined(world, RandomPolicy((-1.0,) * 3, (1.0,) * 3), seed=1) for _ in range(2)]
    assert runs[0].steps.tolist() == [8, 8, 8]
    assert not runs[0].solved.any()
    np.testing.assert_array_equal(runs[0].probability, runs[1].probability)


def test_solved_means_solved_for_some_frames(world: WorldModelEnv) -> None:
    torch.nn.init.constant_(world._estimator.solved.bias, 9.0)
    world.reset()
    solved = [world.step(np.zeros((3, 3), np.float32))[2].tolist() for _ in range(4)]
    assert solved == [[False] * 3] * 3 + [[True] * 3]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_actions_that_are_no_numbers_are_refused(world: WorldModelEnv, value: float) -> None:
    world.reset(seed=0)
    actions = world.action_space.sample()
    actions[0, 0] = value
    with pytest.raises(ConfigError, match="actions must be finite numbers"):
        world.step(actions)


def test_a_stride_that_does_not_fit_is_refused(world: WorldModelEnv) -> None:
    with pytest.raises(ConfigError, match=r"chunk=5.*stride=2"):
        WorldModelEnv(
            world._engine, world._estimator, world._bank, world._starts, np.zeros(3, np.float32),
            WorldEnvConfig(chunk=5),
        )  # fmt: skip


def test_the_bank_finds_a_frame_that_it_holds(tiny_data: ModuleType, tmp_path: Path) -> None:
    frames = tiny_data.frames(tmp_path, [tiny_data.demonstration(0)])
    estimator = StateEstimator(CONFIG)
    estimator.wrist_basis.copy_(torch.rand(48, 6))
    bank = WristBank(frames, "wrist", range(1), estimator)
    wanted = frames.images["wrist"][[0, -1]]
    np.testing.assert_array_equal(bank.nearest(estimator.embed_wrist(torch.from_numpy(wanted))), wanted)


def test_starts_come_from_an_environment_too() -> None:
    config = WorldEnvConfig(camera="front")
    starts = reset_starts(_Room(), [4, 7], config)
    assert starts.pictures[:, 0, 0, 0].tolist() == [4, 7]
    assert (starts.proprio.tolist(), starts.instruction) == ([[4.0], [7.0]], "wait")
    with pytest.raises(UnknownNameError, match=r"side.*front"):
        reset_starts(_Room(), [4], WorldEnvConfig(camera="side"))


class _Room(gymnasium.Env):
    instruction = "wait"

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[dict, dict]:
        picture = np.full((8, 8, 3), seed, np.uint8)
        return {"pixels": {"front": picture, "wrist": picture}, "agent_pos": np.array([seed], np.float64)}, {}


def test_more_starts_than_held_out_episodes_are_refused(tiny_data: ModuleType, tmp_path: Path) -> None:
    frames = tiny_data.frames(tmp_path, [tiny_data.demonstration(seed) for seed in range(2)])
    with pytest.raises(ConfigError, match="episodes=3 must be between 1 and 2"):
        recorded_starts(frames, WorldEnvConfig(camera="front"), range(2), 3)


@pytest.mark.slow
def test_a_trained_agent_acts_inside_its_own_world(tiny_chain: Path) -> None:
    dataset, checkpoint = tiny_chain / "data" / "cells", tiny_chain / "runs" / "head" / "checkpoint"
    settings = {"stride": 2, "steps": 3, "hold": 1, "updates": 80, "batch_size": 16}
    worlds = [
        open_world(dataset, checkpoint, held_out=0.25, estimator=settings, chunk=2, max_steps=16)
        for _ in range(2)
    ]
    policy = ImaginationPolicy.from_pretrained(checkpoint, imagine="adaptive")
    runs = [run_imagined(world, policy, seed=3) for world in worlds]
    assert (
        runs[0].to_dict() == runs[1].to_dict()
    )  # the second world reads the state estimator that the first has kept
    assert runs[0].solved.shape == (2,)
