"""Recordings from a LeRobotDataset v3: lerobot says what is where, episodes are read one at a time."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from PIL import Image

from emu_agent.data.frames import IMAGES
from emu_agent.data.lerobot_writer import EXECUTED, ended_well, read_side_file
from emu_agent.data.segments import Segment, segments_of_gripper, segments_of_rows
from emu_agent.errors import DatasetError
from emu_agent.evaluation.recordings import EpisodeError, Facts, Recording

ACTION, STEPS = "action", "language_persistent"
TIME_TOLERANCE_S = 2e-3
"""How far a time stamp may be from where the frame rate puts it."""


class LeRobotSource:
    """Episodes of a LeRobotDataset v3, with pictures in its tables or in videos.

    Args:
        root: The dataset's folder.
        camera: Which camera is imagined.

    Raises:
        DatasetError: There is no dataset, or it has no such camera.
    """

    def __init__(self, root: Path, camera: str) -> None:
        if not (root / "meta" / "info.json").exists():
            raise DatasetError(f"no LeRobotDataset v3 at {root}; `emu-agent collect output={root}` makes one")
        from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

        try:
            self._meta: Any = LeRobotDatasetMetadata(f"emu-agent/{root.name}", root=root)
        except (OSError, ValueError, KeyError) as error:
            raise DatasetError(f"the metadata of {root} cannot be read: {error}") from error
        features = self._meta.features
        cameras = sorted(key.removeprefix(IMAGES) for key in features if key.startswith(IMAGES))
        if camera not in cameras:
            raise DatasetError(f"{root} has no camera {camera!r}; its cameras are {cameras}")
        self._root, self._key, self._side_file = root, IMAGES + camera, read_side_file(root)
        self._columns = [name for name in (ACTION, EXECUTED, STEPS) if name in features]
        table = self._meta.tasks["task_index"]
        self._tasks = {int(index): str(task) for task, index in table.items()}
        names = {ACTION: "actions", STEPS: "steps"}
        self.facts = Facts(
            path=str(root),
            kind="lerobot",
            fps=float(self._meta.fps),
            camera=camera,
            cameras=tuple(cameras),
            size=self._size(features[self._key]),
            episodes=tuple(range(self._meta.total_episodes)),
            keys=self._keys(),
            holds=frozenset(names[column] for column in self._columns if column in names),
            action_dim=int(features[ACTION]["shape"][0]) if ACTION in features else None,
            fingerprint=self._side_file.get("fingerprint", {}),
            digest=_digest(root),
        )

    def read(self, episode: int) -> Recording:
        """Read one episode.

        Raises:
            EpisodeError: it is empty, cut short, of another rate or size, or cannot be decoded.
        """
        table = self._table(episode)
        self._check_times(np.asarray(table["timestamp"], dtype=np.float64))
        pictures = self._video(episode, table) if self._is_video else self._pictures(table)
        if pictures.shape[1:3] != self.facts.size:
            here, there = (" x ".join(map(str, size)) for size in (pictures.shape[1:3], self.facts.size))
            raise EpisodeError(f"its pictures have {here} pixels, the dataset's {there}")
        commands, executed = self._vectors(table, ACTION), self._vectors(table, EXECUTED)
        instruction = self._tasks[int(table["task_index"][0])]
        success = ended_well(self._side_file, episode)
        segments, has_steps = self._segments(table, commands, instruction, success=success)
        return Recording(
            index=episode,
            pictures=pictures,
            instruction=instruction,
            actions=commands if executed is None else executed,
            segments=segments,
            has_steps=has_steps,
        )

    def _keys(self) -> tuple[int, ...]:
        seeds = tuple(one["seed"] for one in self._side_file.get("episodes", []))
        return seeds if len(seeds) == self._meta.total_episodes else tuple(range(self._meta.total_episodes))

    @property
    def _is_video(self) -> bool:
        return self._meta.features[self._key]["dtype"] == "video"

    def _size(self, feature: dict[str, Any]) -> tuple[int, int]:
        """Height and width; lerobot allows the channels first or last."""
        first, second, third = (int(n) for n in feature["shape"])
        return (second, third) if first == 3 and third != 3 else (first, second)

    def _table(self, episode: int) -> dict[str, Any]:
        """The episode's rows, by column."""
        import pyarrow
        import pyarrow.parquet

        columns = ["timestamp", "task_index", *self._columns, *([] if self._is_video else [self._key])]
        length = int(self._meta.episodes[episode]["length"])
        try:
            path = self._root / self._meta.get_data_file_path(episode)
            only = [("episode_index", "==", episode)]
            table = pyarrow.parquet.read_table(path, columns=columns, filters=only)
        except (OSError, pyarrow.ArrowException) as error:
            raise EpisodeError(f"its table cannot be read: {error}") from error
        if table.num_rows == 0 or length == 0:
            raise EpisodeError("it is empty")
        if table.num_rows != length:
            raise EpisodeError(
                f"it has {table.num_rows} frames, the dataset's list of episodes says {length}"
            )
        return {name: table[name].to_pylist() for name in columns}

    def _check_times(self, times: Float64[np.ndarray, " time"]) -> None:
        """Refuse an episode of another frame rate, or with frames left out."""
        expected = times[0] + np.arange(len(times)) / self.facts.fps
        if len(times) > 1 and np.abs(times - expected).max() > TIME_TOLERANCE_S:
            rate = (len(times) - 1) / max(times[-1] - times[0], 1e-9)
            raise EpisodeError(f"its time stamps mean {rate:.3g} frames/s, the dataset {self.facts.fps:.3g}")

    def _pictures(self, table: dict[str, Any]) -> UInt8[np.ndarray, "time height width 3"]:
        pictures = []
        for t, cell in enumerate(table[self._key]):
            try:
                picture = np.asarray(Image.open(BytesIO(cell["bytes"])).convert("RGB"))
            except (OSError, SyntaxError, TypeError, ValueError) as error:  # what PIL raises for broken files
                raise EpisodeError(f"the picture of frame {t} cannot be decoded") from error
            if pictures and picture.shape != pictures[0].shape:
                raise EpisodeError(f"the picture of frame {t} has another size than those before")
            pictures.append(picture)
        return np.stack(pictures)

    def _video(self, episode: int, table: dict[str, Any]) -> UInt8[np.ndarray, "time height width 3"]:
        from lerobot.datasets.video_utils import decode_video_frames

        begin = self._meta.episodes[episode][f"videos/{self._key}/from_timestamp"]
        path = self._root / self._meta.get_video_file_path(episode, self._key)
        times = [begin + time for time in table["timestamp"]]
        try:
            frames = decode_video_frames(path, times, 0.5 / self.facts.fps, return_uint8=True)
        except Exception as error:  # whichever decoder lerobot has chosen, each with errors of its own
            raise EpisodeError(
                f"its video cannot be decoded: {' '.join(str(error).split())[:200]}"
            ) from error
        return frames.permute(0, 2, 3, 1).contiguous().numpy()

    def _vectors(self, table: dict[str, Any], name: str) -> Float32[np.ndarray, "time dim"] | None:
        if name not in table:
            return None
        values = np.asarray(table[name], dtype=np.float32).reshape(len(table["timestamp"]), -1)
        if not np.isfinite(values).all():
            raise EpisodeError(f"{name} is not finite everywhere")
        return values

    def _segments(
        self, table: dict[str, Any], actions: np.ndarray | None, instruction: str, *, success: bool
    ) -> tuple[tuple[Segment, ...], bool]:
        """Segments, and whether their instructions were recorded."""
        length = len(table["timestamp"])
        rows = table[STEPS][0] if STEPS in table else None
        named = segments_of_rows(rows or [], self.facts.fps, length, success=success)
        if named:
            return tuple(named), True
        gripper = np.zeros(length, np.float32) if actions is None else actions[:, -1]
        return tuple(segments_of_gripper(gripper, instruction)), False


def _digest(root: Path) -> str:
    """Of the metadata, which hold means and extremes of every episode."""
    files = sorted(path for path in (root / "meta").rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
