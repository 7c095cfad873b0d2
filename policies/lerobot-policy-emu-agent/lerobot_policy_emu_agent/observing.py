"""LeRobot's batches as observations of the agent."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emu_policies import ActionHeadConfig
from lerobot.utils.constants import OBS_STATE

from emu_agent.errors import ConfigError
from emu_agent.observation import IMAGE_PREFIX, Observation, resized

if TYPE_CHECKING:
    from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig


def observation_of(batch: Mapping[str, Any], config: "EmuAgentConfig", head: ActionHeadConfig) -> Observation:
    """The observation of a batch, with the cameras called as the agent calls them.

    Raises:
        ConfigError: The batch lacks a picture or the proprioception; the message lists what it has.
    """
    assert config.camera_key is not None
    assert config.wrist_key is not None
    if missing := sorted({config.camera_key, config.wrist_key, OBS_STATE} - set(batch)):
        there = sorted(key for key in batch if key.startswith("observation."))
        raise ConfigError(
            f"the policy needs {missing}, and the observation has {there}; --rename_map="
            f'\'{{"{there[0] if there else "there"}": "{missing[0]}"}}\' gives one the other\'s name'
        )
    whole = Observation.from_lerobot({
        IMAGE_PREFIX + head.camera: batch[config.camera_key],
        IMAGE_PREFIX + head.wrist_camera: batch[config.wrist_key],
        OBS_STATE: batch[OBS_STATE],
        "task": batch.get("task") or [""] * len(batch[OBS_STATE]),
    })  # fmt: skip
    sizes = {head.camera: image_size(config, head), head.wrist_camera: (head.wrist_size, head.wrist_size)}
    images = {camera: resized(whole.images[camera], size) for camera, size in sizes.items()}
    return Observation(images, whole.proprio, whole.instruction)


def rows_of(observation: Observation) -> list[Observation]:
    """One observation for each robot."""
    return [
        Observation(
            {camera: pictures[i : i + 1] for camera, pictures in observation.images.items()},
            observation.proprio[i : i + 1],
            observation.instruction[i : i + 1],
        )
        for i in range(observation.batch_size)
    ]


def image_size(config: "EmuAgentConfig", head: ActionHeadConfig) -> tuple[int, int]:
    """Height and width of the pictures that the agent imagines."""
    height, width = config.agent.get("image_size", (head.wrist_size, head.wrist_size))
    return int(height), int(width)
