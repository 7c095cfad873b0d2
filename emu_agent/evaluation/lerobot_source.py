"""Recordings from a LeRobotDataset v3: lerobot says what is where, episodes are read one at a time."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from emu_agent.data.columns import ACTION, EXECUTED, LANGUAGE, SUBTASK
from emu_agent.data.frame_cache import segments_of_language
from emu_agent.data.lerobot_folder import Episode, LeRobotFolder, decoded, vectors
from emu_agent.data.segments import Segment, segments_of_gripper
from emu_agent.errors import DatasetError
from emu_agent.evaluation.recordings import EpisodeError, Facts, Recording


class LeRobotSource:
    """Episodes of a LeRobotDataset v3, with pictures in its tables or in videos.

    Args:
        root: The dataset's folder.
        camera: Which camera is imagined.

    Raises:
        DatasetError: There is no dataset, or it has no such camera.
    """

    def __init__(self, root: Path, camera: str) -> None:
        self._folder, self._camera = LeRobotFolder(root), camera
        self._image = self._folder.camera(camera)
        features = self._folder.features
        names = {ACTION: "actions", LANGUAGE: "steps"}
        self.facts = Facts(
            path=str(root),
            fps=self._folder.fps,
            camera=camera,
            cameras=tuple(sorted(self._folder.cameras)),
            size=self._image.size,
            episodes=tuple(range(len(self._folder.lengths))),
            keys=tuple(self._folder.keys),
            holds=frozenset(name for column, name in names.items() if column in features),
            action_dim=int(features[ACTION]["shape"][0]) if ACTION in features else None,
            fingerprint=self._folder.fingerprint,
            digest=_digest(root),
        )

    def read(self, episode: int) -> Recording:
        """Read one episode.

        Raises:
            EpisodeError: it is empty, cut short, of another rate or size, or cannot be decoded.
        """
        try:
            return self._recording(episode)
        except DatasetError as error:
            raise EpisodeError(str(error)) from error

    def _recording(self, episode: int) -> Recording:
        columns = ["timestamp", ACTION, EXECUTED, SUBTASK, LANGUAGE]
        images = [] if self._image.video else [self._image.key]
        table, length = self._folder.table([*columns, *images], episode), self._folder.lengths[episode]
        if table.num_rows == 0 or length == 0:
            raise EpisodeError("it is empty")
        if table.num_rows != length:
            raise EpisodeError(
                f"it has {table.num_rows} frames, the dataset's list of episodes says {length}"
            )
        times = vectors(table, "timestamp")[:, 0].astype(np.float64)
        self._check_times(times)
        pictures = (
            self._folder.video(self._image, episode, times)
            if self._image.video
            else _images(table[self._image.key].to_pylist())
        )
        if pictures.shape[1:3] != self.facts.size:
            here, there = (" x ".join(map(str, size)) for size in (pictures.shape[1:3], self.facts.size))
            raise EpisodeError(f"its pictures have {here} pixels, the dataset's {there}")
        commands, executed = _vectors(table, ACTION), _vectors(table, EXECUTED)
        segments, has_steps = self._segments(table, times, commands, self._folder.episodes[episode])
        return Recording(
            index=episode,
            pictures=pictures,
            instruction=self._folder.episodes[episode].instruction,
            actions=commands if executed is None else executed,
            segments=segments,
            has_steps=has_steps,
        )

    def _check_times(self, times: Float64[np.ndarray, " time"]) -> None:
        """Refuse an episode of another frame rate, or with frames left out; stamps may tremble."""
        period = 1 / self.facts.fps
        late = np.abs(times - times[0] - np.arange(len(times)) * period)
        if late.max() < period / 2:
            return
        rate = (len(times) - 1) / max(times[-1] - times[0], 1e-9)
        worst = int(late.argmax())
        raise EpisodeError(
            f"its time stamps mean {rate:.3g} frames/s and the dataset's rate is {self.facts.fps:.3g}: frame "
            f"{worst} is {1000 * late[worst]:.0f} ms from where that rate puts it"
        )

    def _segments(
        self, table: Any, times: np.ndarray, actions: np.ndarray | None, episode: Episode
    ) -> tuple[tuple[Segment, ...], bool]:
        """Segments, and whether their instructions were recorded."""
        rows = table[LANGUAGE][0].as_py() if LANGUAGE in table.column_names else None
        index = vectors(table, SUBTASK)[:, 0] if SUBTASK in table.column_names else None
        success = episode.success
        if named := segments_of_language(self._folder, rows or [], times, index, success=success):
            return tuple(named), True
        gripper = np.zeros(len(times), np.float32) if actions is None else actions[:, -1]
        return tuple(segments_of_gripper(gripper, episode.instruction)), False


def _images(cells: list[dict[str, Any]]) -> UInt8[np.ndarray, "time height width 3"]:
    pictures = []
    for t, cell in enumerate(cells):
        try:
            picture = decoded(cell["bytes"])
        except ValueError as error:
            raise EpisodeError(f"the picture of frame {t} {error}") from error
        if pictures and picture.shape != pictures[0].shape:
            raise EpisodeError(f"the picture of frame {t} has another size than those before")
        pictures.append(picture)
    return np.stack(pictures)


def _vectors(table: Any, name: str) -> Float32[np.ndarray, "time dim"] | None:
    if name not in table.column_names:
        return None
    values = vectors(table, name).astype(np.float32)
    if not np.isfinite(values).all():
        raise EpisodeError(f"{name} is not finite everywhere")
    return values


def _digest(root: Path) -> str:
    """Of the metadata, which hold means and extremes of every episode."""
    files = sorted(path for path in (root / "meta").rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
