"""Write videos that every browser plays: H.264, 4:2:0, index at the front. No external program is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from jaxtyping import UInt8

from emu_agent.run_folder import replacing


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
