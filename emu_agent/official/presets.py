"""How the published Emu3.5 is sampled, task by task, and the sizes of its pictures.

The values are those of the published settings; `vla` has none, and takes those of `explore`. A picture has
the size that the caller gives; else that of the last reference picture; else the one of the task's default
aspect; else the model writes a size itself, and keeps it for later pictures.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from emu_agent.decoding.sampling import SamplingConfig
from emu_agent.decoding.stream import GenerationConfig
from emu_agent.errors import ConfigError, lookup
from emu_agent.tokens.picture import AREA_INTERLEAVED, AREA_SINGLE, PIXEL_MULTIPLE, prepared_size
from emu_agent.tokens.sequence import ImageGrid

AUTO = "auto"
"""The aspect that leaves the size to the model."""
SIZE = re.compile(r"([1-9]\d*)x([1-9]\d*)")


@dataclass(frozen=True, kw_only=True)
class TaskPreset:
    """Published settings of a task."""

    generation: GenerationConfig
    """Sampling, guidance and length."""
    area: int = AREA_INTERLEAVED
    """Pixels of a reference picture after resizing, and of a picture of a given aspect."""
    references: tuple[int, int] = (0, 1)
    """Fewest and most reference pictures."""
    aspect: str = AUTO
    """Aspect of the pictures where neither the caller nor a reference gives a size."""
    pictures: int | None = None
    """Stop after so many pictures; None goes on until the model ends."""


def _generation(
    guidance: float, length: int, image_top_k: int, text: tuple[int, float, float]
) -> GenerationConfig:
    top_k, top_p, temperature = text
    return GenerationConfig(
        max_new_tokens=length,
        guidance_scale=guidance,
        text=SamplingConfig(top_k=top_k, top_p=top_p, temperature=temperature),
        image=SamplingConfig(top_k=image_top_k),
    )


_EXPLORE = _generation(3.0, 32_768, 5120, (200, 0.5, 0.7))

TASK_PRESETS: Mapping[str, TaskPreset] = {
    # 5.0 is for the Image checkpoint; with the general one the publishers recommend 2.0.
    "t2i": TaskPreset(
        generation=_generation(5.0, 5120, 5120, (1024, 0.9, 1.0)),
        area=AREA_SINGLE,
        references=(0, 0),
        aspect="4:3",
        pictures=1,
    ),
    "x2i": TaskPreset(
        generation=_generation(3.0, 5120, 5120, (1024, 0.9, 1.0)),
        area=AREA_SINGLE,
        references=(1, 3),
        pictures=1,
    ),
    "howto": TaskPreset(generation=_generation(3.0, 32_768, 10_240, (200, 0.8, 0.7))),
    "story": TaskPreset(generation=_generation(3.0, 32_768, 10_240, (1024, 0.9, 1.0))),
    "explore": TaskPreset(generation=_EXPLORE),
    "vla": TaskPreset(generation=_EXPLORE, references=(1, 1)),
}

ASPECT_GRIDS = {
    "1:1": ImageGrid(64, 64),
    "2:3": ImageGrid(78, 52),
    "3:2": ImageGrid(52, 78),
    "3:4": ImageGrid(73, 55),
    "4:3": ImageGrid(55, 73),
    "9:16": ImageGrid(85, 47),
    "16:9": ImageGrid(47, 85),
    "21:9": ImageGrid(41, 97),
}
"""Published sizes of pictures of one megapixel; some differ from what the resize rule gives."""


def task_preset(task: str) -> TaskPreset:
    """The published settings of a task.

    Raises:
        UnknownNameError: There is no such task.
    """
    return lookup("task", task, TASK_PRESETS)


def aspect_grid(aspect: str, area: int) -> ImageGrid | None:
    """The grid of an aspect, width first as in "16:9", in pictures of about `area` pixels; None for "auto".

    Raises:
        UnknownNameError: There is no such aspect.
    """
    if aspect == AUTO:
        return None
    published = lookup("aspect", aspect, {**ASPECT_GRIDS, AUTO: None})
    if area == AREA_SINGLE:
        return published
    width, height = map(int, aspect.split(":"))
    width, height = prepared_size(width, height, area)
    return ImageGrid(height // PIXEL_MULTIPLE, width // PIXEL_MULTIPLE)


def size_grid(size: str) -> ImageGrid:
    """The grid of a picture of a given size, height first as in "512x768" [px].

    Raises:
        ConfigError: It is no size, or a side is no multiple of what one code covers.
    """
    match = SIZE.fullmatch(size)
    if match is None:
        raise ConfigError(f"size={size!r} must be height and width in pixels, for example 512x768")
    height, width = int(match[1]), int(match[2])
    if height % PIXEL_MULTIPLE or width % PIXEL_MULTIPLE:
        near = "x".join(
            str(max(1, round(side / PIXEL_MULTIPLE)) * PIXEL_MULTIPLE) for side in (height, width)
        )
        raise ConfigError(
            f"size={size}: both sides must be multiples of {PIXEL_MULTIPLE}, for example {near}"
        )
    return ImageGrid(height // PIXEL_MULTIPLE, width // PIXEL_MULTIPLE)


def generation_settings(
    preset: TaskPreset,
    num_references: int,
    *,
    size: str | None = None,
    aspect: str | None = None,
    guidance_scale: float | None = None,
    max_new_tokens: int | None = None,
) -> GenerationConfig:
    """The settings of a task with what the caller wants otherwise.

    Raises:
        ConfigError: `size` and `aspect` are both given, or one of them makes no sense.
    """
    if size is not None and aspect is not None:
        raise ConfigError(f"give size={size} or aspect={aspect}, not both")
    wanted: dict[str, object] = {"guidance_scale": guidance_scale, "max_new_tokens": max_new_tokens}
    if size is not None:
        wanted["grid"] = size_grid(size)
    elif aspect is not None or not num_references:
        wanted["grid"] = aspect_grid(aspect or preset.aspect, preset.area)
    changes = {name: value for name, value in wanted.items() if value is not None}
    return replace(preset.generation, **changes)
