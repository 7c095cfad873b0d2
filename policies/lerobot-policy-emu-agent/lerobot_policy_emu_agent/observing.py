"""LeRobot's batches as observations of the agent."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from emu_policies import ActionHeadConfig
from lerobot.utils.constants import OBS_STATE

from emu_agent.errors import ConfigError
from emu_agent.observation import IMAGE_PREFIX, Observation
from lerobot_policy_emu_agent.features import needed_cameras

if TYPE_CHECKING:
    from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig


def observation_of(batch: Mapping[str, Any], config: "EmuAgentConfig", head: ActionHeadConfig) -> Observation:
    """The observation of a batch, with the cameras called as the agent calls them.

    Raises:
        ConfigError: The batch lacks a picture or the proprioception; the message lists what it has.
    """
    assert config.camera_key is not None
    assert config.camera_keys is not None
    if missing := sorted({config.camera_key, *needed_cameras(config), OBS_STATE} - set(batch)):
        there = sorted(key for key in batch if key.startswith("observation."))
        raise ConfigError(
            f"the policy needs {missing}, and the observation has {there}; --rename_map="
            f'\'{{"{there[0] if there else "there"}": "{missing[0]}"}}\' gives one the other\'s name'
        )
    keys = {**dict(zip(head.cameras, config.camera_keys, strict=True)), head.camera: config.camera_key}
    return Observation.from_lerobot({
        **{IMAGE_PREFIX + camera: batch[key] for camera, key in keys.items() if key in batch},
        OBS_STATE: batch[OBS_STATE],
        "task": batch.get("task") or [""] * len(batch[OBS_STATE]),
    })  # fmt: skip


def rows_of(observation: Observation) -> list[Observation]:
    """One observation for each robot."""
    return [
        replace(
            observation,
            images={camera: images[i : i + 1] for camera, images in observation.images.items()},
            proprio=observation.proprio[i : i + 1],
            instruction=observation.instruction[i : i + 1],
        )
        for i in range(observation.batch_size)
    ]
