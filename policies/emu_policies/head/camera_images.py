"""Images of the further cameras as a head reads them: in training, in running and in LeRobot's plug-in."""

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from emu_agent.errors import lookup
from emu_agent.observation import Observation, fitted
from emu_policies.head.head_config import ActionHeadConfig


def camera_images(
    observation: Observation, config: ActionHeadConfig
) -> tuple[UInt8[Tensor, "batch cameras height width 3"], Bool[Tensor, "batch cameras"]]:
    """Images of the head's cameras, brought to its size, and which of them there are.

    Raises:
        UnknownNameError: a camera is missing that the head was not trained to do without.
    """
    seen, rows = observation.images, observation.batch_size
    if not config.camera_dropout:
        for camera in config.cameras:
            lookup("camera", camera, seen)
    height, width = config.camera_size
    device = observation.proprio.device
    images = torch.zeros(rows, len(config.cameras), height, width, 3, dtype=torch.uint8, device=device)
    for place, camera in enumerate(config.cameras):
        if camera in seen:
            images[:, place] = fitted(seen[camera], (height, width), config.fit)
    present = torch.tensor([camera in seen for camera in config.cameras], dtype=torch.bool, device=device)
    return images, present.expand(rows, -1)
