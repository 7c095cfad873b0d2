from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from emu_agent.episodes.rollout import run_episode
from emu_agent.report.panel import HEIGHT, WIDTH
from emu_agent.report.video import HOLD_FRAMES, EpisodeFilm, open_video


def ramp(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    return [np.full((height, width, 3), 20 + 10 * i, np.uint8) for i in range(count)]


def read(path: Path) -> tuple[av.video.stream.VideoStream, list[np.ndarray]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream, [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


def test_frames_come_back_in_order_as_browsers_want_them(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "video.mp4"
    with open_video(path, fps=20) as video:
        for frame in ramp(12):
            video.add(frame)
    stream, frames = read(path)
    assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 20)
    assert [round(float(frame.mean()) / 10) for frame in frames] == list(range(2, 14))
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before all of it is there


def test_a_video_that_was_not_finished_leaves_nothing(tmp_path: Path) -> None:
    def fall_over() -> None:
        with open_video(tmp_path / "video.mp4") as video:
            video.add(ramp(1)[0])
            raise RuntimeError("the robot fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        fall_over()
    assert list(tmp_path.iterdir()) == []


def test_odd_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="47 x 64"), open_video(tmp_path / "video.mp4") as video:
        video.add(ramp(1, height=47)[0])


def test_the_film_of_an_episode(tmp_path: Path, toy_reach: ModuleType) -> None:
    shown = []

    def show(imagination: object) -> tuple[str, np.ndarray]:
        shown.append(imagination)
        return imagination.text[0][0][0], imagination.picture

    about = {"task": "toy", "actor": "toy policy", "instruction": "reach", "camera": "front", "max_steps": 60}
    with open_video(tmp_path / "film.mp4") as video:
        film = EpisodeFilm(video, **about, show=show)
        result = run_episode(toy_reach.make(), toy_reach.ToyPolicy(), 2, film)
    _, frames = read(tmp_path / "film.mp4")
    assert len(frames) == result.steps + HOLD_FRAMES
    assert frames[0].shape == (HEIGHT, WIDTH, 3)
    assert len(shown) == len(range(0, result.steps, 5))  # once for each imagination
