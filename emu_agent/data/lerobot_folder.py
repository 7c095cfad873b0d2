"""A LeRobotDataset v3 on disk, opened once: what it holds, and what it says of its episodes."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, UInt8
from PIL import Image

from emu_agent.data.columns import (
    ACTION,
    EXECUTED,
    IMAGE,
    IMAGES,
    SEED,
    SIDE_FILE,
    STATE,
    SUCCESS,
    TASK,
    read_side_file,
)
from emu_agent.data.split import key_of
from emu_agent.errors import DatasetError

_log = logging.getLogger(__name__)

ON_WRIST = ("wrist", "hand", "gripper")
"""What the names of cameras on an arm have in them."""


@dataclass(frozen=True)
class Camera:
    """How the images of one camera are stored."""

    key: str
    size: tuple[int, int]
    """Height and width [pixels]."""
    video: bool


@dataclass(frozen=True, kw_only=True)
class Episode:
    """What is known of an episode before its frames are read."""

    length: int
    instruction: str
    task: str
    """An environment's id; the instruction where it is not known."""
    seed: int | None
    success: bool
    """Of whose end nothing is known counts as a success, as demonstrations are meant to be."""


class LeRobotFolder:
    """A dataset's description, tables and images.

    Args:
        root: the dataset's folder.

    Raises:
        DatasetError: no dataset there, one of another format, or one that is not whole.
    """

    def __init__(self, root: Path) -> None:
        self.root, info = root, _read_info(root)
        self.features: dict[str, Any] = info["features"]
        self.fps = float(info["fps"])
        self.robot_type: str | None = info.get("robot_type")
        self.total_frames = int(info["total_frames"])
        self._video_path: str = info.get("video_path") or ""
        self.side: dict[str, Any] = read_side_file(root)
        visual = {key: one for key, one in self.features.items() if one["dtype"] in ("image", "video")}
        self.cameras = {_camera_name(key): _camera(key, one) for key, one in visual.items() if _colour(one)}
        self._colourless = {_camera_name(key) for key, one in visual.items() if not _colour(one)}
        self.files = sorted((root / "data").rglob("*.parquet"))
        if not self.files:
            raise DatasetError(f"{root} is not whole, it lacks the tables in data")
        if self.is_ours and not self.side:
            _warn_once(_lost_side_file(root, whole=SEED in self.features))

    @property
    def is_ours(self) -> bool:
        """Whether emu-agent has written it."""
        return bool(self.side) or EXECUTED in self.features or SEED in self.features

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Of embodiment, cameras and renderer; empty where it is not known."""
        kept = (self.features.get(SEED, {}).get("info") or {}).get("fingerprint", {})
        return self.side.get("fingerprint") or kept

    def camera(self, name: str) -> Camera:
        """The camera of that name.

        Raises:
            DatasetError: there is none, or it has no colours; the message names those that there are.
        """
        if name in self.cameras:
            return self.cameras[name]
        if name in self._colourless:
            raise DatasetError(
                f"{self.root}: camera {name!r} has no three colour channels (depth, or shades of grey), which "
                f"imagining needs; cameras with colours are {sorted(self.cameras)}"
            )
        raise DatasetError(f"{self.root} has no camera {name!r}; its cameras are {sorted(self.cameras)}")

    @property
    def imagined_camera(self) -> str:
        """The camera that sees the scene: the first that is at no wrist.

        Raises:
            DatasetError: there is no camera with colours.
        """
        if not self.cameras:
            raise DatasetError(f"{self.root} has no camera with colours; a world model needs images")
        names = sorted(self.cameras)
        return next((one for one in names if not any(word in one for word in ON_WRIST)), names[0])

    def table(self, columns: Sequence[str], episode: int | None = None) -> pa.Table:
        """Some columns of all frames, or of one episode; those that are missing are left out.

        Raises:
            DatasetError: the tables cannot be read.
        """
        wanted, only, files = [c for c in columns if c in self._columns], None, self.files
        if episode is not None:
            only = [("episode_index", "==", episode)]
            chunk, file = (int(self._index[f"data/{what}_index"][episode]) for what in ("chunk", "file"))
            files = [self.root / "data" / f"chunk-{chunk:03d}" / f"file-{file:03d}.parquet"]
        try:
            return pa.concat_tables([pq.read_table(path, columns=wanted, filters=only) for path in files])
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"its table cannot be read: {error}") from error

    @cached_property
    def lengths(self) -> list[int]:
        """Frames of each episode, by the dataset's list of episodes."""
        return [int(length) for length in self._index["length"]]

    @cached_property
    def episodes(self) -> list[Episode]:
        """What is known of each episode."""
        table = self.table(["episode_index", "task_index", SEED, TASK, SUCCESS])
        index = vectors(table, "episode_index")[:, 0]
        if (np.diff(index) < 0).any():
            raise DatasetError(f"{self.root}: its frames are not in the order of its episodes")
        ends = np.searchsorted(index, np.arange(len(self.lengths)), side="right")
        rows = table.take(pa.array(np.maximum(ends - 1, 0))).to_pylist()
        told = self._told()
        return [
            Episode(
                length=length,
                instruction=(instruction := self.instructions[row["task_index"]]),
                task=row.get(TASK) or one.get("task") or instruction,
                seed=row.get(SEED, one.get("seed")),
                success=bool(row.get(SUCCESS, one.get("success", True))),
            )
            for length, row, one in zip(self.lengths, rows, told, strict=True)
        ]

    @cached_property
    def keys(self) -> list[int]:
        """What decides which episodes are held out: their seeds, or what stands for these."""
        seeds = [one.seed for one in self.episodes]
        if all(seed is not None for seed in seeds):
            return [int(seed) for seed in seeds if seed is not None]
        table = self.table([STATE, ACTION])
        values = [vectors(table, name) for name in table.column_names]
        ends = np.cumsum(self.lengths)
        parts = zip(*(np.split(one, ends[:-1]) for one in values), strict=True)
        if not values:
            return list(range(len(self.lengths)))
        return [key_of(e.instruction, *arrays) for e, arrays in zip(self.episodes, parts, strict=True)]

    @cached_property
    def instructions(self) -> dict[int, str]:
        """Tasks in words, by their number."""
        frame = pq.read_table(self.root / "meta" / "tasks.parquet").to_pandas()
        frame = frame if "task" not in frame.columns else frame.set_index("task")
        return {int(index): str(text) for text, index in frame["task_index"].items()}

    def images(self, camera: Camera, batch: int = 128) -> Iterator[list[bytes]]:
        """Encoded images of a camera that stores them in its tables, in order, some at a time."""
        for path in self.files:
            for part in pq.ParquetFile(path).iter_batches(batch, columns=[camera.key]):
                yield part.column(0).field("bytes").to_pylist()

    def video(
        self, camera: Camera, episode: int, times: Float64[np.ndarray, " time"]
    ) -> UInt8[np.ndarray, "time height width 3"]:
        """Frames of an episode from its video.

        Raises:
            DatasetError: it cannot be decoded.
        """
        from lerobot.datasets.video_utils import decode_video_frames

        index = {what: self._index[f"videos/{camera.key}/{what}"][episode] for what in _VIDEO}
        path = self._video_path.format(
            video_key=camera.key, chunk_index=int(index["chunk_index"]), file_index=int(index["file_index"])
        )
        wanted = [float(index["from_timestamp"] + time) for time in times]
        try:
            frames = decode_video_frames(self.root / path, wanted, 0.5 / self.fps, return_uint8=True)
        except Exception as error:  # whichever decoder lerobot has chosen, each with errors of its own
            raise DatasetError(
                f"its video cannot be decoded: {' '.join(str(error).split())[:200]}"
            ) from error
        return frames.permute(0, 2, 3, 1).contiguous().numpy()

    def _told(self) -> list[dict[str, Any]]:
        """What the side file says of the episodes: nothing if it is about others."""
        told, missing = self.side.get("episodes", []), [{} for _ in self.lengths]
        if told and [one.get("steps") for one in told] != self.lengths:
            _warn_once(
                f"{self.root / SIDE_FILE} is about other episodes ({len(told)} there, {len(self.lengths)} in "
                "the dataset, or of other lengths): it is not used for seeds and success; episodes were "
                "removed or merged since"
            )
            return missing
        return told or missing

    @cached_property
    def _columns(self) -> list[str]:
        return pq.ParquetFile(self.files[0]).schema_arrow.names

    @cached_property
    def _index(self) -> dict[str, list[Any]]:
        """LeRobot's list of episodes: lengths, and in which files they are."""
        files = sorted((self.root / "meta" / "episodes").rglob("*.parquet"))
        if not files:
            raise DatasetError(f"{self.root} is not whole, it lacks meta/episodes")
        names = pq.ParquetFile(files[0]).schema_arrow.names
        wanted = [n for n in names if not n.startswith(("stats/", "meta/"))]
        return pa.concat_tables([pq.read_table(file, columns=wanted) for file in files]).to_pydict()


_VIDEO = ("chunk_index", "file_index", "from_timestamp")


def vectors(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers as rows, also where each is a single one.

    Raises:
        DatasetError: rows are missing, or of different lengths.
    """
    column = table[name].combine_chunks()
    while not (pa.types.is_primitive(column.type) or pa.types.is_boolean(column.type)):
        column = column.flatten()
    try:
        return column.to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)
    except ValueError as error:
        raise DatasetError(f"{name} has rows of different lengths") from error


def decoded(cell: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """An image from its bytes, with channels last whatever the dataset calls them.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return np.asarray(Image.open(BytesIO(cell)).convert("RGB"))
    except (OSError, SyntaxError, TypeError, ValueError) as error:  # what PIL raises for broken files
        raise ValueError("cannot be decoded") from error


def _read_info(root: Path) -> dict[str, Any]:
    info_file = root / "meta" / "info.json"
    if not info_file.exists():
        raise DatasetError(f"no LeRobotDataset v3 at {root}; `emu-agent collect output={root}` makes one")
    try:
        info = json.loads(info_file.read_text())
    except ValueError as error:
        raise DatasetError(f"{info_file} is damaged: {error}") from error
    version = str(info.get("codebase_version", "unknown"))
    if not version.startswith("v3."):
        raise DatasetError(
            f"{root} is a LeRobotDataset of format {version}, and v3.0 is needed; convert it with `python -m "
            f"lerobot.scripts.convert_dataset_v21_to_v30 --repo-id={root.name} --root={root}`"
        )
    if missing := [name for name in ("data", "meta/episodes") if not (root / name).is_dir()]:
        raise DatasetError(f"{root} is not whole, it lacks {' and '.join(missing)}")
    return info


def _camera_name(key: str) -> str:
    return "image" if key == IMAGE else key.removeprefix(IMAGES)


def _channels_first(feature: dict[str, Any]) -> bool:
    shape, names = feature["shape"], feature.get("names")
    if isinstance(names, list) and len(names) == 3 and str(names[0]).startswith("channel"):
        return True
    return shape[0] == 3 and shape[-1] != 3


def _colour(feature: dict[str, Any]) -> bool:
    if len(feature["shape"]) != 3 or (feature.get("info") or {}).get("is_depth_map"):
        return False
    return feature["shape"][0 if _channels_first(feature) else -1] in (3, 4)


def _camera(key: str, feature: dict[str, Any]) -> Camera:
    shape = [int(side) for side in feature["shape"]]
    height, width = shape[1:] if _channels_first(feature) else shape[:2]
    return Camera(key, (height, width), feature["dtype"] == "video")


def _lost_side_file(root: Path, *, whole: bool) -> str:
    lost = (
        f"{root} has lost {SIDE_FILE}, which LeRobot's tools do not copy: fingerprint, tasks, seeds and "
        "success are read from its columns, but `collect` cannot add episodes"
    )
    if whole:
        return f"{lost}; copy the file from the dataset that this one was made of if it is to grow"
    return (
        f"{root} has lost {SIDE_FILE}, which LeRobot's tools do not copy, and is too old to say by itself: its "
        "fingerprint is not compared, all episodes count as successes, and which are held out is decided by "
        "their content; copy the file from the original dataset if no episode was removed or added"
    )


@cache
def _warn_once(text: str) -> None:
    _log.warning(text)
