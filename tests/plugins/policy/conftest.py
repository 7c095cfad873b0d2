"""The policy plug-in on the smallest agent; everything here imports lerobot."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

FINGERPRINT = {"embodiment": "four_cells", "control_hz": 20}


@pytest.fixture(scope="session")
def agent(tiny_agent: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of emu-agent, adapted to DiDA."""
    from emu_agent.decoding.noise import DidaConfig

    return tiny_agent.write_agent(
        tmp_path_factory.mktemp("agent") / "checkpoint",
        camera="front",
        image_size=[32, 32],
        fingerprint=FINGERPRINT,
        dida=DidaConfig(passes=1).to_dict(),
        policy={"n_action_steps": 2},
    )


@pytest.fixture(scope="session")
def make_config(agent: Path) -> Callable[..., Any]:
    """A config with these settings, for the agent above."""
    import lerobot_policy_emu_agent  # noqa: F401 - registers the policy
    from lerobot.policies.factory import make_policy_config

    def make(**settings: Any) -> Any:
        values = {"pretrained_agent": str(agent), "camera_key": "observation.images.front", "device": "cpu"}
        return make_policy_config("emu_agent", **{**values, **settings})

    return make


@pytest.fixture(scope="session")
def make_policy(make_config: Callable[..., Any]) -> Callable[..., Any]:
    """The policy with these settings as LeRobot builds it, in evaluation mode."""
    from lerobot.policies.factory import get_policy_class

    def make(**settings: Any) -> Any:
        return get_policy_class("emu_agent")(make_config(**settings)).eval()

    return make


@pytest.fixture
def batch() -> dict[str, Any]:
    """What LeRobot hands to the policy: two robots, pictures in [0, 1] that were bytes."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, 2, 3, 32, 32), generator=generator) / 255.0
    return {
        "observation.images.front": pictures[0],
        "observation.images.wrist": pictures[1],
        "observation.state": torch.randn(2, 5, generator=generator),
        "task": ["lift the cube", "lift it"],
    }


@pytest.fixture
def save_policy(make_policy: Callable[..., Any]) -> Callable[[Any, Path], Path]:
    """Writes a policy for the features of a robot, with its processors, as lerobot-train leaves it."""
    from lerobot.robots.utils import make_robot_from_config
    from lerobot.utils.feature_utils import dataset_to_policy_features, hw_to_dataset_features
    from lerobot_policy_emu_agent.processor_emu_agent import make_emu_agent_pre_post_processors

    def save(robot: Any, folder: Path) -> Path:
        arm = make_robot_from_config(robot)
        observed = hw_to_dataset_features(arm.observation_features, "observation", use_video=False)
        moved = hw_to_dataset_features(arm.action_features, "action", use_video=False)
        policy = make_policy(
            new_head=True,
            input_features=dataset_to_policy_features(observed),
            output_features=dataset_to_policy_features(moved),
        )
        policy.save_pretrained(folder)
        for pipeline in make_emu_agent_pre_post_processors(policy.config):
            pipeline.save_pretrained(folder)
        return folder

    return save
