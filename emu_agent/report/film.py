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
        task: Name of the task.
        actor: What acts: the policy, and how it imagines.
        instruction: The task in words.
        camera: The camera that is imagined.
        max_steps: Control steps after which the episode is cut off, if known.
        show: Gives step instruction and keyframe of an imagination; called once for each.
    """

    def __init__(
        self,
        writer: VideoWriter,
        *,
        task: str,
        actor: str,
        instruction: str,
        camera: str,
        max_steps: int | None,
        show: Callable[[Any], tuple[str, Picture]],
    ) -> None:
        self._writer = writer
        self._fixed = {
            "task": task,
            "actor": actor,
            "instruction": instruction,
            "camera": camera,
            "max_steps": max_steps,
        }
        self._show = show
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
        if step.action is not None:
            self._actions.append(step.action)
        ended = step.action is None
        panel = draw_panel(self._content(step, ended))
        for _ in range(HOLD_FRAMES if ended else 1):
            self._writer.add(panel)

    def _content(self, step: StepRecord, ended: bool) -> PanelContent:
        text, keyframe = self._shown
        actions = np.stack(self._actions) if self._actions else np.zeros((0, 7))
        return PanelContent(
            **self._fixed,
            step=step.index,
            pixels=step.pixels,
            keyframe=keyframe,
            step_text=text,
            reason=step.imagination_reason,
            actions=actions.astype(np.float32),
            imagined=tuple(self._imagined),
            success=step.success,
            ended=ended,
        )
