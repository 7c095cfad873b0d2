from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from emu_policies.confidence.confidence_score import load_confidence
from emu_policies.confidence.confidence_stage import ConfidenceStage
from emu_policies.planning.imagination_policy import ImaginationPolicy
from gymnasium import spaces

from emu_agent.errors import ConfigError, DatasetError
from emu_agent.training.loop import LoopConfig, train

pytestmark = pytest.mark.slow

SHADE = 60
"""Of the square, as demonstrations have it."""


class Cells(gymnasium.Env):
    """The tiny world as an environment: the square goes on when told to, unless it is stuck.

    Then it is seen in a cell in which no demonstration has it: that can be told before its time is up.
    """

    instruction = "move the square"
    subtask_instructions = ("go right", "go down")

    def __init__(self, tiny_data: ModuleType, stuck: bool = True) -> None:
        self.tiny_data, self.may_stick = tiny_data, stuck
        self.action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.observation_space = spaces.Dict({})

    def fingerprint(self) -> dict[str, Any]:
        return {"embodiment": "four_cells"}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        assert seed is not None
        self.stuck = self.may_stick and seed % 2 == 1
        self.cell, self.count = 0, 0
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self.count += 1
        if not self.stuck and self.count % 5 == 0:
            self.cell = {0: 1, 1: 3, 3: 3}[self.cell]
        solved = self.cell == 3 and self.count >= 12
        return self._observe(), 0.0, solved, False, self._info(solved)

    def _info(self, solved: bool = False) -> dict[str, Any]:
        subtask = self.subtask_instructions[min(self.cell, 1)]
        return {
            "is_success": solved,
            "subtask": subtask,
            "disturbance": "stuck" if self.stuck else "none",
            "disturbed_at": None,
        }

    def _observe(self) -> dict[str, Any]:
        picture, seen = self.tiny_data.picture, 2 if self.stuck else self.cell
        pixels = {"front": picture(seen, SHADE), "wrist": picture(seen, 255 - SHADE)}
        return {"pixels": pixels, "agent_pos": np.array([self.cell % 2, self.cell // 2], np.float32)}


@pytest.fixture
def make_stage(tiny_chain: Path, tiny_data: ModuleType) -> Any:
    def make(stuck: bool = True, **settings: Any) -> ConfidenceStage:
        return ConfidenceStage(
            str(tiny_chain / "runs" / "head" / "checkpoint"),
            str(tiny_chain / "data" / "cells"),
            Cells(tiny_data, stuck),
            {"candidates": 1, "cell_dim": 3},
            held_out=0.25,
            **{"fit_episodes": 6, "test_episodes": 6, "max_steps": 30, **settings},
        )

    return make


def test_a_score_learns_to_doubt_a_world_that_is_stuck(make_stage: Any, tmp_path: Path) -> None:
    stage = make_stage(threshold=0.5)
    loop = LoopConfig(
        updates=80,
        lr=3e-2,
        warmup=5,
        average=0.9,
        weight_decay=0.0,
        validate_every=80,
        save_every=80,
        log_every=40,
    )
    figures = train(stage, loop, tmp_path)
    assert figures["auroc"] > 0.9
    assert load_confidence(tmp_path / "checkpoint") is not None
    policy = ImaginationPolicy.from_pretrained(tmp_path / "checkpoint")
    assert policy.config.confidence_threshold == 0.5
    again = make_stage(threshold=0.5)  # from what was played the first time
    assert np.array_equal(again.fit.signals, stage.fit.signals)


def test_a_score_begins_as_the_seed_says(make_stage: Any) -> None:
    begun = []
    for earlier in (1, 2):
        torch.manual_seed(earlier)
        stage = make_stage()
        torch.manual_seed(0)
        begun.append(stage.build().state_dict())
    assert all(torch.equal(begun[0][key], begun[1][key]) for key in begun[0])
    assert begun[0]["surprise"].any()


def test_episodes_in_which_nothing_fails_teach_nothing(make_stage: Any) -> None:
    with pytest.raises(DatasetError, match="raise fit_episodes"):
        make_stage(stuck=False, fit_seed=1000, test_seed=52_000)


def test_it_is_not_fitted_on_seeds_that_choose_or_test(make_stage: Any) -> None:
    with pytest.raises(ConfigError, match="seeds 200000 to 200005 are not for training"):
        make_stage(fit_seed=200_000)
    with pytest.raises(ConfigError, match="seeds 100000 to 100005 are not for validation"):
        make_stage(test_seed=100_000)
