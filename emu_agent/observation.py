"""What the agent gets at one control step, from a Gymnasium environment or from a LeRobot batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import Tensor

from emu_agent.errors import ConfigError, lookup

IMAGE_PREFIX = "observation.images."
"""LeRobot's key of a camera picture is this and the name of the camera."""
FITS = ("resize", "letterbox")
"""How an image is brought to another size: stretched, or with bars that keep its proportions."""

SLACK = 0.02
"""By how much colours may leave the range from 0 to 1: resizing with sharp filters overshoots."""


@dataclass(frozen=True)
class Observation:
    """Pictures, the body's own readings, and the task in words, for a batch of robots."""

    images: Mapping[str, UInt8[Tensor, "batch _ _ 3"]]
    """Pictures by camera."""
    proprio: Float32[Tensor, "batch proprio_dim"]
    """Proprioception, in the robot's units."""
    instruction: tuple[str, ...]
    """The task of each robot, as a person put it."""
    embodiment: str | None = None
    """Robot, controller and gripper in a word, where it is known; one for the whole batch."""

    def __post_init__(self) -> None:
        sizes = {name: len(image) for name, image in self.images.items()} | {"proprio": len(self.proprio)}
        if set(sizes.values()) != {len(self.instruction)}:
            raise ConfigError(
                f"each part needs one entry per instruction ({len(self.instruction)}), but has {sizes}"
            )

    @property
    def batch_size(self) -> int:
        """Number of robots."""
        return len(self.instruction)

    def to(self, device: torch.device | str) -> "Observation":
        """Return the same observation on a device."""
        images = {camera: image.to(device) for camera, image in self.images.items()}
        return replace(self, images=images, proprio=self.proprio.to(device))

    @classmethod
    def from_gym(
        cls, raw: Mapping[str, Any], instruction: str | Sequence[str], embodiment: str | None = None
    ) -> "Observation":
        """Read the observation of a Gymnasium environment, single or vectorised.

        Args:
            raw: "pixels" with one array per camera (not without cameras), and "agent_pos".
            instruction: One for all robots, or one for each.
            embodiment: Of the robots, where it is known.

        Raises:
            ConfigError: If a key is missing or a picture does not hold bytes, channels last.
        """
        if "agent_pos" not in raw:
            raise ConfigError(f"a Gymnasium observation needs 'agent_pos'; it has {sorted(raw)}")
        images = {camera: _batched_bytes(camera, pixels) for camera, pixels in raw.get("pixels", {}).items()}
        return cls(images, *_proprio_and_instruction(raw["agent_pos"], instruction), embodiment)

    @classmethod
    def from_lerobot(cls, batch: Mapping[str, Any]) -> "Observation":
        """Read a LeRobot batch: pictures channels first in [0, 1] or bytes, "observation.state", "task".

        Raises:
            ConfigError: If a key is missing or there is no picture.
        """
        if missing := sorted({"observation.state", "task"} - set(batch)):
            raise ConfigError(f"a LeRobot batch needs 'observation.state' and 'task'; {missing} missing")
        images = {
            key.removeprefix(IMAGE_PREFIX): _bytes_channels_last(key, picture)
            for key, picture in batch.items()
            if key.startswith(IMAGE_PREFIX) and not key.endswith("_is_pad")
        }
        if not images:
            raise ConfigError(f"a LeRobot batch needs a picture, as in '{IMAGE_PREFIX}agentview'")
        return cls(images, *_proprio_and_instruction(batch["observation.state"], batch["task"]))


def fitted(
    images: UInt8[Tensor, "batch _ _ 3"], size: tuple[int, int], fit: str = "resize"
) -> UInt8[Tensor, "batch height width 3"]:
    """Images of another size, each whole: training, running, serving and LeRobot's plug-in all use this.

    Args:
        images: of any size and proportions.
        size: height and width wanted [pixels].
        fit: `resize` stretches; `letterbox` keeps proportions and fills the rest with black bars.

    Raises:
        UnknownNameError: there is no such `fit`.
    """
    lookup("fit", fit, dict.fromkeys(FITS))
    if tuple(images.shape[1:3]) == size:
        return images
    inner = size if fit == "resize" else _inside(tuple(images.shape[1:3]), size)
    scaled = F.interpolate(images.movedim(-1, 1).float(), inner, mode="bilinear", antialias=True)
    top, left = ((whole - part) // 2 for whole, part in zip(size, inner, strict=True))
    bars = (left, size[1] - inner[1] - left, top, size[0] - inner[0] - top)
    whole = F.pad(scaled.round().clamp(0, 255).to(torch.uint8), bars)
    return whole.movedim(1, -1).contiguous()


def unfitted(
    images: UInt8[Tensor, "batch _ _ 3"], size: tuple[int, int], fit: str = "resize"
) -> UInt8[Tensor, "batch height width 3"]:
    """Undo `fitted`: images of the original height and width, without bars."""
    if fit == "letterbox":
        whole = tuple(images.shape[1:3])
        height, width = _inside(size, whole)
        top, left = (whole[0] - height) // 2, (whole[1] - width) // 2
        images = images[:, top : top + height, left : left + width]
    return fitted(images, size)


def _inside(size: tuple[int, ...], room: tuple[int, ...]) -> tuple[int, int]:
    """The largest height and width of the proportions of `size` within `room`."""
    scale = min(room[0] / size[0], room[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _proprio_and_instruction(
    proprio: Any, instruction: str | Sequence[str]
) -> tuple[Tensor, tuple[str, ...]]:
    proprio = torch.as_tensor(np.array(proprio) if isinstance(proprio, np.ndarray) else proprio).float()
    proprio = proprio[None] if proprio.ndim == 1 else proprio
    return proprio, (instruction,) * len(proprio) if isinstance(instruction, str) else tuple(instruction)


def _batched_bytes(camera: str, pixels: Any) -> Tensor:
    # Copied: renderers hand out views of buffers that they overwrite, some of them flipped or read-only.
    pixels = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.array(pixels, order="C"))
    if pixels.dtype != torch.uint8 or pixels.ndim not in (3, 4) or pixels.shape[-1] != 3:
        shape = tuple(pixels.shape)
        raise ConfigError(
            f"camera {camera!r} must give bytes (..., height, width, 3), not {pixels.dtype} {shape}"
        )
    return pixels[None] if pixels.ndim == 3 else pixels


def _bytes_channels_last(key: str, picture: Any) -> Tensor:
    picture = torch.as_tensor(picture)
    if picture.ndim not in (3, 4) or picture.shape[-3] != 3:
        raise ConfigError(f"{key!r} must have shape (..., 3, height, width), not {tuple(picture.shape)}")
    if picture.is_floating_point():
        low, high = (float(end) for end in picture.aminmax()) if picture.numel() else (0.0, 0.0)
        if not (low >= -SLACK and high <= 1 + SLACK):  # put so that what is no number is refused as well
            raise ConfigError(
                f"{key!r} must have real numbers from 0 to 1, or bytes; these go from {low:g} to {high:g}"
            )
        # Pictures were bytes before LeRobot divided them by 255, so rounding gives the same bytes again.
        picture = picture.mul(255.0).round().clamp(0, 255).to(torch.uint8)
    return _batched_bytes(key, picture.movedim(-3, -1).contiguous())
