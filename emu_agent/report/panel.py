"""One picture of one control step: what the camera sees, what is imagined, what is said, what is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from emu_agent.report.canvas import (
    ACCENT,
    BACKGROUND,
    BAD,
    CARD,
    FAINT,
    GOOD,
    INK,
    MUTED,
    Box,
    Colour,
    draw_card,
    draw_lines,
    draw_text,
    enlarge,
    mix,
    text_width,
    wrap,
)

MARGIN, HEADER, CAPTION, VIEW, SIDE, TRACE = 16, 52, 26, 384, 256, 160
WIDTH = MARGIN + VIEW + MARGIN + VIEW + MARGIN + SIDE + MARGIN
HEIGHT = HEADER + CAPTION + VIEW + MARGIN + TRACE + MARGIN
CAMERA = Box(MARGIN, HEADER + CAPTION, VIEW, VIEW)
KEYFRAME = Box(2 * MARGIN + VIEW, HEADER + CAPTION, VIEW, VIEW)
COLUMN = Box(3 * MARGIN + 2 * VIEW, HEADER + CAPTION, SIDE, VIEW)
TRACES = Box(MARGIN, HEADER + CAPTION + VIEW + MARGIN, WIDTH - 2 * MARGIN, TRACE)

TRACE_STEPS = 120
"""Control steps that the action trace shows."""
FLASH_STEPS = 10
"""Control steps for which a new imagination is framed."""
AXES = (("x", (240, 113, 103)), ("y", (122, 199, 120)), ("z", (98, 160, 234)))


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
    step_text: str | None = None
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
    """Draw the panel as an RGB picture of `HEIGHT` x `WIDTH` pixels."""
    canvas = np.full((HEIGHT, WIDTH, 3), BACKGROUND, np.uint8)
    _draw_header(canvas, content)
    _draw_camera(canvas, content)
    _draw_keyframe(canvas, content)
    _draw_column(canvas, content)
    _draw_traces(canvas, content)
    return canvas


def _draw_header(canvas: UInt8[np.ndarray, "height width 3"], content: PanelContent) -> None:
    x = draw_text(canvas, content.task, (MARGIN, 33), 0.68, INK, bold=True)
    draw_text(canvas, content.actor, (x + 18, 33), 0.52, MUTED)
    of = f" / {content.max_steps}" if content.max_steps else ""
    if content.success:
        word, colour = "SOLVED", GOOD
    else:
        word, colour = ("NOT SOLVED", BAD) if content.ended else ("RUNNING", MUTED)
    pill = Box(WIDTH - MARGIN - text_width(word, 0.48) - 26, 14, text_width(word, 0.48) + 26, 26)
    draw_card(canvas, pill, mix(BACKGROUND, colour, 0.25), radius=12)
    draw_text(canvas, word, (pill.x + 13, pill.y + 18), 0.48, mix(colour, INK, 0.3))
    counter = f"step {content.step:3d}{of}"
    draw_text(canvas, counter, (pill.x - 18 - text_width(counter, 0.52), 33), 0.52, INK)


def _draw_camera(canvas: UInt8[np.ndarray, "height width 3"], content: PanelContent) -> None:
    draw_text(canvas, f"now  ({content.camera})", (CAMERA.x, CAMERA.y - 9), 0.48, MUTED)
    CAMERA.part(canvas)[:] = enlarge(content.pixels[content.camera], CAMERA)
    if content.success:
        cv2.rectangle(canvas, CAMERA.corner, CAMERA.far_corner, GOOD, 3)


def _draw_keyframe(canvas: UInt8[np.ndarray, "height width 3"], content: PanelContent) -> None:
    draw_text(canvas, "imagined next keyframe", (KEYFRAME.x, KEYFRAME.y - 9), 0.48, MUTED)
    if content.keyframe is None:
        draw_card(canvas, KEYFRAME, CARD)
        words = "no imagination"
        x = KEYFRAME.x + (KEYFRAME.width - text_width(words, 0.6)) // 2
        draw_text(canvas, words, (x, KEYFRAME.y + KEYFRAME.height // 2), 0.6, FAINT)
        return
    KEYFRAME.part(canvas)[:] = enlarge(content.keyframe, KEYFRAME)
    if not content.imagined:
        return
    at, milliseconds = content.imagined[-1]
    why = f"{content.reason.replace('_', ' ')}, " if content.reason else ""
    tag = f"{why}{milliseconds:.0f} ms"
    freshness = max(0.0, 1 - (content.step - at) / FLASH_STEPS)
    colour = mix(FAINT, ACCENT, freshness)
    right = KEYFRAME.x + KEYFRAME.width
    draw_text(canvas, tag, (right - text_width(tag, 0.48), KEYFRAME.y - 9), 0.48, colour)
    if freshness > 0:
        cv2.rectangle(canvas, KEYFRAME.corner, KEYFRAME.far_corner, mix(BACKGROUND, ACCENT, freshness), 3)


def _draw_column(canvas: UInt8[np.ndarray, "height width 3"], content: PanelContent) -> None:
    y = COLUMN.y
    others = [name for name in content.pixels if name != content.camera][:1]
    for name in others:
        draw_text(canvas, name, (COLUMN.x, y - 9), 0.48, MUTED)
        view = Box(COLUMN.x, y, 200, 200)
        view.part(canvas)[:] = enlarge(content.pixels[name], view)
        y += view.height + 14
    y = _draw_paragraph(canvas, "INSTRUCTION", content.instruction, INK, y)
    y = _draw_paragraph(canvas, "STEP", content.step_text or "-", ACCENT if content.step_text else FAINT, y)
    if content.imagined:
        mean = sum(ms for _, ms in content.imagined) / len(content.imagined)
        times = "once" if len(content.imagined) == 1 else f"{len(content.imagined)} times"
        foot = f"imagined {times}, {mean:.0f} ms each"
        draw_text(canvas, foot, (COLUMN.x, COLUMN.y + COLUMN.height - 4), 0.42, MUTED)


def _draw_paragraph(
    canvas: UInt8[np.ndarray, "height width 3"], title: str, text: str, colour: Colour, y: int
) -> int:
    """Draw a title and up to three lines of text; return where the next paragraph starts."""
    draw_text(canvas, title, (COLUMN.x, y + 12), 0.4, FAINT)
    lines = wrap(text, 0.52, COLUMN.width)[:3]
    for i, line in enumerate(lines):
        draw_text(canvas, line, (COLUMN.x, y + 34 + 20 * i), 0.52, colour)
    return y + 34 + 20 * len(lines)


def _draw_traces(canvas: UInt8[np.ndarray, "height width 3"], content: PanelContent) -> None:
    draw_card(canvas, TRACES, CARD)
    lanes = _lanes(content.actions.shape[1])
    plot = Box(TRACES.x + 96, TRACES.y + 22, TRACES.width - 108, TRACES.height - 32)
    first = max(0, len(content.actions) - TRACE_STEPS)
    _draw_imagination_marks(canvas, plot, content, first)
    height = plot.height // len(lanes)
    for i, (title, columns) in enumerate(lanes):
        lane = Box(plot.x, plot.y + i * height, plot.width, height - 6)
        middle = lane.y + lane.height // 2
        cv2.line(canvas, (lane.x, middle), (lane.x + lane.width, middle), mix(CARD, INK, 0.12), 1)
        draw_text(canvas, title, (TRACES.x + 12, middle - 3), 0.42, INK)
        x = TRACES.x + 12
        for label, _, colour in columns:
            x = draw_text(canvas, label, (x, middle + 13), 0.42, colour) + 7
        for _, column, colour in columns:
            draw_lines(canvas, lane, content.actions[first:, column], TRACE_STEPS, colour)


def _draw_imagination_marks(
    canvas: UInt8[np.ndarray, "height width 3"], plot: Box, content: PanelContent, first: int
) -> None:
    """A vertical line where an imagination happened, with its milliseconds where they fit."""
    free_from = plot.x
    for step, milliseconds in content.imagined:
        if step < first:
            continue
        x = plot.x + round((step - first) * plot.width / TRACE_STEPS)
        cv2.line(canvas, (x, plot.y - 4), (x, plot.y + plot.height), mix(CARD, ACCENT, 0.45), 1)
        tag = f"{milliseconds:.0f} ms"
        if x >= free_from and x + text_width(tag, 0.4) < plot.x + plot.width:
            free_from = draw_text(canvas, tag, (x, plot.y - 8), 0.4, ACCENT) + 8


def _lanes(action_dim: int) -> list[tuple[str, list[tuple[str, int, Colour]]]]:
    """Which dimensions of an action are drawn together: of an arm (7), or all in one lane."""
    if action_dim != 7:
        colours = [colour for _, colour in AXES]
        return [("action", [(str(i), i, colours[i % 3]) for i in range(action_dim)])]
    move, turn = ([(name, base + i, colour) for i, (name, colour) in enumerate(AXES)] for base in (0, 3))
    return [("move", move), ("turn", turn), ("gripper", [("close", 6, (229, 178, 86))])]
