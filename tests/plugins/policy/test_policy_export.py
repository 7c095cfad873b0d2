"""Checkpoints of `emu-agent train` for LeRobot's commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from emu_agent.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_an_exported_agent_acts_as_the_checkpoint(
    make_policy: Callable[..., Any], agent: Path, batch: dict[str, Any], tmp_path: Path
) -> None:
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors
    from lerobot_policy_emu_agent.export import export

    export(agent, tmp_path / "exported")
    config = PreTrainedConfig.from_pretrained(tmp_path / "exported")
    policy = get_policy_class("emu_agent").from_pretrained(tmp_path / "exported", config=config)
    before, behind = make_pre_post_processors(config, str(tmp_path / "exported"))
    exported, expected = policy.eval(), make_policy()
    renamed = {**batch, "observation.images.agentview": batch["observation.images.front"]}
    key = config.camera_key
    given = {
        name: value
        for name, value in renamed.items()
        if "images" not in name or name in (key, *config.camera_keys)
    }
    with torch.inference_mode():
        actions = behind(exported.select_action(before(given)))
        assert torch.equal(actions, expected.select_action(batch))
    with pytest.raises(ConfigError, match="exists"):
        export(agent, tmp_path / "exported")
