"""One image of one control step: what the camera sees, what is imagined, what is said, what is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

type Colour = tuple[int, int, int]
"""Red, green, blue."""

BACKGROUND: Colour = (17, 20, 27)
CARD: Colour = (28, 33, 43)
INK: Colour = (232, 236, 242)
MUTED: Colour = (156, 166, 182)
FAINT: Colour = (98, 108, 124)
ACCENT: Colour = (94, 200, 214)
GOOD: Colour = (88, 196, 120)
BAD: Colour = (226, 96, 90)
AXES = (("x", (240, 113, 103)), ("y", (122, 199, 120)), ("z", (98, 160, 234)))


class Box(NamedTuple):
    """A rectangle of the image [pixels]."""

    x: int
    y: int
    width: int
    height: int

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, all of them inside."""
        return self.x, self.y, self.x + self.width - 1, self.y + self.height - 1

    def part(self, image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "rows cols 3"]:
        """View of the box's pixels."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


MARGIN, HEADER, CAPTION, VIEW, SIDE, TRACE = 16, 52, 26, 384, 256, 160
WIDTH = MARGIN + VIEW + MARGIN + VIEW + MARGIN + SIDE + MARGIN
HEIGHT = HEADER + CAPTION + VIEW + MARGIN + TRACE + MARGIN
CAMERA = Box(MARGIN, HEADER + CAPTION, VIEW, VIEW)
KEYFRAME = Box(2 * MARGIN + VIEW, HEADER + CAPTION, VIEW, VIEW)
COLUMN = Box(3 * MARGIN + 2 * VIEW, HEADER + CAPTION, SIDE, VIEW)
TRACES = Box(MARGIN, HEADER + CAPTION + VIEW + MARGIN, WIDTH - 2 * MARGIN, TRACE)
PLOT = Box(TRACES.x + 96, TRACES.y + 22, TRACES.width - 108, TRACES.height - 32)

TRACE_STEPS = 120
"""Control steps that the action trace shows."""
FLASH_STEPS = 10
"""Control steps for which a new imagination is framed."""


@dataclass(frozen=True, kw_only=True)
class PanelContent:
    """All that one panel shows."""

    task: str
    """Name of the task."""
    actor: str
    """What acts: the policy, and how it imagines."""
    step: int
    """Control steps taken."""
    max_steps: int | None
    """Control steps after which the episode is cut off."""
    camera: str
    """Name of the camera that is imagined."""
    pixels: Mapping[str, UInt8[np.ndarray, "height width 3"]]
    """Pictures by camera."""
    instruction: str
    """The task in words."""
    keyframe: UInt8[np.ndarray, "key_height key_width 3"] | None = None
    """The imagined keyframe."""
    subtask_text: str | None = None
    """The imagined step instruction."""
    reason: str | None = None
    """Why the latest imagination was made."""
    actions: Float[np.ndarray, "steps action_dim"] = field(default_factory=lambda: np.zeros((0, 7)))
    """Actions so far."""
    imagined: Sequence[tuple[int, float]] = ()
    """Imaginations so far: the control step and the milliseconds."""
    success: bool = False
    """Whether the state is solved."""
    ended: bool = False
    """Whether the episode is over."""


def draw_panel(content: PanelContent) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the panel as an RGB image of `HEIGHT` x `WIDTH` pixels."""
    image = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(image)
    _draw_header(draw, content)
    _draw_camera(image, draw, content)
    _draw_keyframe(image, draw, content)
    _draw_column(image, draw, content)
    _draw_traces(draw, content)
    return np.array(image)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Colour between two, `share` of it from the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def wrap(text: str, size: int, width: int) -> list[str]:
    """Break text into lines that fit a width, between words where there are any."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if _font(size).getlength(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def draw_line(
    draw: ImageDraw.ImageDraw, box: Box, values: Float[np.ndarray, " steps"], colour: Colour
) -> None:
    """Plot values in [-1, 1] from the left edge of a box that has room for `TRACE_STEPS` of them."""
    x = box.x + np.arange(len(values)) * box.width / TRACE_STEPS
    y = box.y + box.height * (0.5 - 0.5 * np.clip(values, -1, 1))
    draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), colour)


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _write(
    draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int], size: int, colour: Colour, anchor: str = "ls"
) -> int:
    """Draw a line of text, by its lower left corner if nothing else is said; returns where it ends."""
    draw.text(at, text, colour, _font(size), anchor)
    return at[0] + round(_font(size).getlength(text))


def _show(image: Image.Image, pixels: UInt8[np.ndarray, "_ _ 3"], box: Box) -> None:
    """Fit an image into a box, keeping its sides' ratio, on black."""
    image.paste(ImageOps.pad(Image.fromarray(pixels), (box.width, box.height)), (box.x, box.y))


def _draw_header(draw: ImageDraw.ImageDraw, content: PanelContent) -> None:
    x = _write(draw, content.task, (MARGIN, 33), 20, INK)
    _write(draw, content.actor, (x + 18, 33), 15, MUTED)
    if content.success:
        word, colour = "SOLVED", GOOD
    else:
        word, colour = ("NOT SOLVED", BAD) if content.ended else ("RUNNING", MUTED)
    left = WIDTH - MARGIN - round(_font(14).getlength(word)) - 26
    draw.rounded_rectangle((left, 14, WIDTH - MARGIN, 40), 12, mix(BACKGROUND, colour, 0.25))
    _write(draw, word, (left + 13, 32), 14, mix(colour, INK, 0.3))
    of = f" / {content.max_steps}" if content.max_steps else ""
    _write(draw, f"step {content.step:3d}{of}", (left - 18, 33), 15, INK, "rs")


def _draw_camera(image: Image.Image, draw: ImageDraw.ImageDraw, content: PanelContent) -> None:
    _write(draw, f"now  ({content.camera})", (CAMERA.x, CAMERA.y - 9), 14, MUTED)
    _show(image, content.pixels[content.camera], CAMERA)
    if content.success:
        draw.rectangle(CAMERA.corners, outline=GOOD, width=3)


def _draw_keyframe(image: Image.Image, draw: ImageDraw.ImageDraw, content: PanelContent) -> None:
    _write(draw, "imagined next keyframe", (KEYFRAME.x, KEYFRAME.y - 9), 14, MUTED)
    if content.keyframe is None:
        draw.rounded_rectangle(KEYFRAME.corners, 8, CARD)
        middle = KEYFRAME.x + KEYFRAME.width // 2, KEYFRAME.y + KEYFRAME.height // 2
        _write(draw, "no imagination", middle, 18, FAINT, "mm")
        return
    _show(image, content.keyframe, KEYFRAME)
    if not content.imagined:
        return
    at, milliseconds = content.imagined[-1]
    why = f"{content.reason.replace('_', ' ')}, " if content.reason else ""
    freshness = max(0.0, 1 - (content.step - at) / FLASH_STEPS)
    right = KEYFRAME.x + KEYFRAME.width
    tag, colour = f"{why}{milliseconds:.0f} ms", mix(FAINT, ACCENT, freshness)
    _write(draw, tag, (right, KEYFRAME.y - 9), 14, colour, "rs")
    if freshness > 0:
        draw.rectangle(KEYFRAME.corners, outline=mix(BACKGROUND, ACCENT, freshness), width=3)


def _draw_column(image: Image.Image, draw: ImageDraw.ImageDraw, content: PanelContent) -> None:
    y = COLUMN.y
    for name in [name for name in content.pixels if name != content.camera][:1]:
        _write(draw, name, (COLUMN.x, y - 9), 14, MUTED)
        _show(image, content.pixels[name], Box(COLUMN.x, y, 200, 200))
        y += 214
    said = content.subtask_text
    for title, text, colour in (
        ("INSTRUCTION", content.instruction, INK),
        ("SUBTASK", said or "-", ACCENT if said else FAINT),
    ):
        _write(draw, title, (COLUMN.x, y + 12), 12, FAINT)
        lines = wrap(text, 15, COLUMN.width)[:3]
        for i, line in enumerate(lines):
            _write(draw, line, (COLUMN.x, y + 34 + 20 * i), 15, colour)
        y += 34 + 20 * len(lines)
    if content.imagined:
        mean = sum(ms for _, ms in content.imagined) / len(content.imagined)
        times = "once" if len(content.imagined) == 1 else f"{len(content.imagined)} times"
        foot = COLUMN.x, COLUMN.y + COLUMN.height - 4
        _write(draw, f"imagined {times}, {mean:.0f} ms each", foot, 12, MUTED)


def _draw_traces(draw: ImageDraw.ImageDraw, content: PanelContent) -> None:
    draw.rounded_rectangle(TRACES.corners, 8, CARD)
    first = max(0, len(content.actions) - TRACE_STEPS)
    free_from = PLOT.x
    for step, milliseconds in content.imagined:  # a vertical line each, with its time where there is room
        x, tag = PLOT.x + round((step - first) * PLOT.width / TRACE_STEPS), f"{milliseconds:.0f} ms"
        if step >= first:
            draw.line((x, PLOT.y - 4, x, PLOT.y + PLOT.height), mix(CARD, ACCENT, 0.45))
            if x >= free_from and x + _font(12).getlength(tag) < PLOT.x + PLOT.width:
                free_from = _write(draw, tag, (x, PLOT.y - 8), 12, ACCENT) + 8
    lanes = _lanes(content.actions.shape[1])
    for i, (title, columns) in enumerate(lanes):
        height = PLOT.height // len(lanes)
        lane = Box(PLOT.x, PLOT.y + i * height, PLOT.width, height - 6)
        middle, x = lane.y + lane.height // 2, TRACES.x + 12
        draw.line((lane.x, middle, lane.x + lane.width, middle), mix(CARD, INK, 0.12))
        _write(draw, title, (x, middle - 3), 12, INK)
        for label, column, colour in columns:
            x = _write(draw, label, (x, middle + 13), 12, colour) + 7
            draw_line(draw, lane, content.actions[first:, column], colour)


def _lanes(action_dim: int) -> list[tuple[str, list[tuple[str, int, Colour]]]]:
    """Which dimensions of an action are drawn together: of an arm (7), or all in one lane."""
    if action_dim != 7:
        colours = [colour for _, colour in AXES]
        return [("action", [(str(i), i, colours[i % 3]) for i in range(action_dim)])]
    move, turn = ([(name, base + i, colour) for i, (name, colour) in enumerate(AXES)] for base in (0, 3))
    return [("move", move), ("turn", turn), ("gripper", [("close", 6, (229, 178, 86))])]
