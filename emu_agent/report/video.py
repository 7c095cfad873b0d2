"""Steps of an episode as panels, and panels as a video that every browser plays.

Videos are H.264, 4:2:0, with the index at the front; no external program is needed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from jaxtyping import UInt8

from emu_agent.episodes.rollout import StepRecord
from emu_agent.report.panel import PanelContent, draw_panel
from emu_agent.run_folder import replacing

HOLD_FRAMES = 20
"""How often the last frame is repeated, so that the outcome can be read."""

type Picture = UInt8[np.ndarray, "height width 3"]


class VideoWriter:
    """Takes frames one by one; all of one size, both sides even."""

    def __init__(self, container: OutputContainer, fps: int, quality: int) -> None:
        self._container = container
        self._fps = fps
        self._quality = quality
        self._stream: VideoStream | None = None

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Append one frame (RGB)."""
        if self._stream is None:
            self._stream = self._open_stream(*frame.shape[:2])
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))

    def _open_stream(self, height: int, width: int) -> VideoStream:
        if height % 2 or width % 2:
            raise ValueError(f"frames are {height} x {width}; both sides must be even for 4:2:0 video")
        stream = self._container.add_stream("libx264", rate=self._fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, self._fps)
        # One thread: encoding then ends with `add` and does not slow down what is timed between the frames.
        stream.options = {"crf": str(self._quality), "preset": "veryfast", "threads": "1"}
        return stream


@contextmanager
def open_video(path: Path, fps: int = 20, quality: int = 23) -> Iterator[VideoWriter]:
    """Write a video that appears at `path` only if the block succeeds.

    Args:
        path: The .mp4 file.
        fps: Frames per second.
        quality: x264's constant rate factor; smaller is better and bigger.
    """
    with (
        replacing(path) as part,
        av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        writer = VideoWriter(container, fps, quality)
        yield writer
        writer.finish()


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

    def __call__(self, step: StepRecord) -> None:
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
