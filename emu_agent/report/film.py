"""Turns the steps of an episode into panels and the panels into a video."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

from emu_agent.episodes.rollout import StepRecord
from emu_agent.report.panel import PanelContent, draw_panel
from emu_agent.report.video import VideoWriter

HOLD_FRAMES = 20
"""How often the last frame is repeated, so that the outcome can be read."""

type Picture = UInt8[np.ndarray, "height width 3"]


class EpisodeFilm:
    """Recorder that writes one panel per control step.

    Args:
        writer: Takes the frames.
        show: Gives step instruction and keyframe of an imagination; called once for each.
        fixed: Fields of `PanelContent` that stay: task, actor, instruction, camera and max_steps.
    """

    def __init__(
        self, writer: VideoWriter, *, show: Callable[[Any], tuple[str, Picture]], **fixed: Any
    ) -> None:
        self._writer, self._show, self._fixed = writer, show, fixed
        self._seen: Any = None
        self._shown: tuple[str | None, Picture | None] = (None, None)
        self._actions: list[np.ndarray] = []
        self._imagined: list[tuple[int, float]] = []

    def record(self, step: StepRecord) -> None:
        """Add the panel of this step; the step without an action ends the film."""
        if step.imagination is not self._seen:
            self._seen = step.imagination
            self._shown = (None, None) if step.imagination is None else self._show(step.imagination)
        if "imagine_ms" in step.timing:
            self._imagined.append((step.index, step.timing["imagine_ms"]))
        ended = step.action is None
        if step.action is not None:
            self._actions.append(step.action)
        text, keyframe = self._shown
        actions = np.stack(self._actions) if self._actions else np.zeros((0, 7))
        now = {"step": step.index, "pixels": step.pixels, "success": step.success, "ended": ended}
        content = PanelContent(
            **self._fixed,
            **now,
            keyframe=keyframe,
            subtask_text=text,
            reason=step.imagination_reason,
            actions=actions.astype(np.float32),
            imagined=tuple(self._imagined),
        )
        panel = draw_panel(content)
        for _ in range(HOLD_FRAMES if ended else 1):
            self._writer.add(panel)
