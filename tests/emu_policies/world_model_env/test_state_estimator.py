from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from emu_policies.world_model_env.estimator_training import (
    EstimatorData,
    EstimatorTraining,
    draw_stretches,
    train_estimator,
)
from emu_policies.world_model_env.state_estimator import (
    RobotState,
    StateEstimatorConfig,
    principal_components,
    shrink,
)

from emu_agent.errors import ConfigError

CONFIG = StateEstimatorConfig(
    stride=2,
    num_cells=4,
    code_dim=8,
    proprio_dim=2,
    action_dim=3,
    wrist_side=4,
    wrist_dim=6,
    cell_dim=4,
    dim=32,
)


def test_principal_components_undo_a_known_mixture() -> None:
    generator = torch.Generator().manual_seed(0)
    sources = torch.randn(500, 2, generator=generator) * torch.tensor([3.0, 1.0])
    mixed = sources @ torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]) + 5.0
    mean, basis = principal_components(mixed, 2)
    assert basis.is_contiguous()  # or it could not be stored
    found = (mixed - mean) @ basis
    correlation = torch.corrcoef(torch.cat([found, sources], dim=1).T)[:2, 2:].abs()
    torch.testing.assert_close(correlation, torch.eye(2), atol=0.1, rtol=0)
    assert found.square().mean().item() == pytest.approx(1.0, rel=1e-3)


def test_shrinking_averages_squares() -> None:
    picture = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    picture[:, :4, 4:] = 255
    assert shrink(picture, 2)[0].tolist() == [0.0, 1.0, 0.0, 0.0] * 3


def test_an_embedding_wider_than_the_picture_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"wrist_dim=49.*48"):
        StateEstimatorConfig(wrist_side=4, wrist_dim=49)


def test_stretches_stay_within_their_episode(tiny_data: ModuleType, tmp_path: Path) -> None:
    frames = tiny_data.frames(tmp_path, [tiny_data.demonstration(seed) for seed in range(2)])
    end = frames.span(0).stop
    stretch = draw_stretches(frames, np.array([end - 4, end]), stride=2, steps=4, hold=1)
    assert stretch.frames.tolist() == [[end - 4, end - 2, end - 2, end - 2], [end, end + 2, end + 4, end + 6]]
    assert stretch.valid.tolist() == [[True, True, False, False], [True] * 4]
    assert stretch.solved[1].sum() == 0.0


def test_the_end_of_a_failure_does_not_show_the_task_solved(tiny_data: ModuleType, tmp_path: Path) -> None:
    demonstrations = [tiny_data.demonstration(seed) for seed in range(2)]
    frames = tiny_data.frames(tmp_path, [demonstrations[0], replace(demonstrations[1], success=False)])
    starts = np.array([frames.span(episode).stop - 3 for episode in range(2)])
    stretch = draw_stretches(frames, starts, stride=1, steps=3, hold=1)
    assert stretch.solved.tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_the_state_estimator_learns_to_follow_a_tiny_world(tiny_data: ModuleType, tmp_path: Path) -> None:
    # The code of a frame is the square's cell, which decides what the body reads and what the wrist sees.
    frames = tiny_data.frames(tmp_path, [tiny_data.demonstration(seed) for seed in range(6)])
    cell = torch.from_numpy(frames.proprio.round()).long()
    codes = (cell[:, 0] + 2 * cell[:, 1])[:, None, None].expand(-1, 2, 2)
    wrist = torch.cat([shrink(torch.from_numpy(frames.images["wrist"]), CONFIG.wrist_side)])
    data = EstimatorData(
        frames=frames, codes=codes, simulated=codes, wrist=wrist, codebook=torch.eye(8)[:4], episodes=range(6)
    )
    training = EstimatorTraining(stride=2, steps=3, hold=1, updates=60, batch_size=32, lr=1e-2)
    estimator, again = (train_estimator(data, CONFIG, training) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(estimator.parameters(), again.parameters(), strict=True))
    last = frames.span(0).stop - 1
    before = RobotState(
        torch.from_numpy(frames.proprio[[last - 2]]),
        estimator.embed_wrist(torch.from_numpy(frames.images["wrist"][[last - 2]])),
    )
    actions = torch.from_numpy(frames.executed[None, last - 2 : last])
    with torch.no_grad():
        state, solved = estimator(data.codebook[codes[[last]]].flatten(1, 2), before, actions)
        _, unsolved = estimator(data.codebook[codes[[0]]].flatten(1, 2), before, actions)
    np.testing.assert_allclose(state.proprio[0], [1.0, 1.0], atol=0.3)
    assert solved.item() > unsolved.item() + 1.0
