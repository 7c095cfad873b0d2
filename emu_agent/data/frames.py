"""The frames of a LeRobotDataset as memory-mapped arrays: what training reads thousands of times per minute.

Pictures are decoded once, in order, into `<dataset>.cache/`; after that a frame costs a copy instead of a
PNG.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from tqdm import tqdm

from emu_agent.data.lerobot_writer import EXECUTED, ended_well, read_side_file
from emu_agent.data.segments import Segment, segments_of_gripper, segments_of_rows
from emu_agent.data.split import Split, key_of, refuse_reserved, split
from emu_agent.errors import DatasetError
from emu_agent.fingerprint import DEFAULT_EMBODIMENT, embodiment_of
from emu_agent.observation import fitted
from emu_agent.run_folder import replacing, write_json

IMAGES = "observation.images."
ON_WRIST = ("wrist", "hand", "gripper")
"""What the names of cameras on an arm have in them."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Every frame of a dataset, in order of its episodes."""

    images: dict[str, UInt8[np.ndarray, "frames height width 3"]]
    proprio: Float32[np.ndarray, "frames proprio_dim"]
    actions: Float32[np.ndarray, "frames action_dim"]
    executed: Float32[np.ndarray, "frames action_dim"]
    starts: Int64[np.ndarray, " episodes"]
    """First frame of each episode."""
    instructions: tuple[str, ...]
    """Instruction of each episode."""
    segments: tuple[tuple[Segment, ...], ...]
    """Segments of each episode, in frames counted from its start."""
    successes: tuple[bool, ...]
    """Whether each episode ended in success."""
    fingerprint: dict[str, Any]
    cache: Path
    """Folder for what is derived from these frames."""
    seeds: tuple[int, ...] = ()
    """Seed of the environment in each episode; none where it is not known."""
    embodiment: str = DEFAULT_EMBODIMENT
    """Robot, controller and gripper in a word: decides about action bins and head."""

    def __len__(self) -> int:
        return len(self.proprio)

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return len(self.starts)

    def span(self, episode: int) -> range:
        """Frames of one episode."""
        end = self.starts[episode + 1] if episode + 1 < self.num_episodes else len(self)
        return range(int(self.starts[episode]), int(end))

    def rows(self, episodes: Iterable[int]) -> Int64[np.ndarray, " rows"]:
        """Numbers of all frames of some episodes, episode by episode."""
        spans = map(self.span, episodes)
        return np.concatenate([np.arange(0), *(np.arange(span.start, span.stop) for span in spans)])

    def split(self, held_out: float) -> Split:
        """Episodes for training, and about the fraction `held_out`, which training never sees.

        Raises:
            DatasetError: one side would be empty, or the dataset holds episodes that are not for training.
        """
        refuse_reserved(self.seeds, "the dataset")
        return split(self.seeds or self._keys(), held_out)

    def _keys(self) -> list[int]:
        spans = [self.span(episode) for episode in range(self.num_episodes)]
        return [
            key_of(text, self.proprio[span.start : span.stop], self.actions[span.start : span.stop])
            for text, span in zip(self.instructions, spans, strict=True)
        ]

    def digest(self) -> str:
        """What tells these episodes from others, wherever they lie: hash of all but the pictures."""
        words = json.dumps([self.instructions, [[asdict(one) for one in row] for row in self.segments]])
        digest = hashlib.sha256(words.encode())
        for array in (self.starts, self.proprio, self.actions, self.executed):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def load_frames(
    root: Path, cameras: Sequence[str], size: tuple[int, int] | None = None, fit: str = "resize"
) -> Frames:
    """Open the dataset at `root`, decoding its pictures on first use.

    Args:
        root: the dataset's folder.
        cameras: whose pictures are wanted.
        size: height and width to which pictures are brought; None leaves them as they are.
        fit: how, see `emu_agent.observation.fitted`.

    Raises:
        DatasetError: no dataset there, a camera is missing (the message names those present), or it is not
            readable.
    """
    info = read_info(root)
    if missing := [name for name in ("data", "meta/episodes") if not (root / name).is_dir()]:
        raise DatasetError(f"{root} is not whole, it lacks {' and '.join(missing)}")
    present = cameras_of(root)
    if missing := sorted(set(cameras) - set(present)):
        raise DatasetError(f"{root} has no camera {missing[0]!r}; its cameras are {present}")
    if all(tuple(info["features"][IMAGES + camera]["shape"][:2]) == size for camera in cameras):
        size = None
    content = [info, _files(root), sorted(cameras), *([size] if size else []), *([fit] if size and fit != "resize" else [])]
    cache = cache_of(root) / hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    if not (cache / "frames.json").exists():
        _fill(root, cache, tuple(cameras), size, fit)
    return _open(root, cache, tuple(cameras))


def read_info(root: Path) -> dict[str, Any]:
    """LeRobot's description of the dataset at `root`.

    Raises:
        DatasetError: no dataset there, or it is damaged.
    """
    info_file = root / "meta" / "info.json"
    if not info_file.exists():
        raise DatasetError(f"no LeRobotDataset v3 at {root}; `emu-agent collect output={root}` makes one")
    try:
        return json.loads(info_file.read_text())
    except ValueError as error:
        raise DatasetError(f"{info_file} is damaged: {error}") from error


def cameras_of(root: Path) -> list[str]:
    """Names of the cameras of the dataset at `root`, in order.

    Raises:
        DatasetError: no dataset there, or it is damaged.
    """
    features = read_info(root)["features"]
    return sorted(key.removeprefix(IMAGES) for key in features if key.startswith(IMAGES))


def imagined_camera(root: Path) -> str:
    """The camera of the dataset at `root` that sees the scene: the first that is at no wrist.

    Raises:
        DatasetError: it has no camera.
    """
    cameras = cameras_of(root)
    if not cameras:
        raise DatasetError(f"{root} has no camera; a world model needs images")
    return next((one for one in cameras if not any(word in one for word in ON_WRIST)), cameras[0])


def cache_of(root: Path) -> Path:
    """Folder for what is derived from the dataset at `root`."""
    return root.with_name(root.name + ".cache")


def new_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.memmap:
    """An array in a new file whose space is taken at once: a full disk is an error here, a crash later."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array


def _files(root: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of every file: a dataset that was written again is another one."""
    stats = ((path, path.stat()) for path in sorted(root.rglob("*")) if path.is_file())
    return [(path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def _fill(
    root: Path, cache: Path, cameras: tuple[str, ...], size: tuple[int, int] | None, fit: str
) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    try:
        dataset = LeRobotDataset(f"emu-agent/{root.name}", root=root)
    except Exception as error:  # lerobot asks the hub for what is missing here: whatever a network may say
        raise DatasetError(f"{root} is not whole, lerobot cannot open it: {error}") from error
    cache.mkdir(parents=True, exist_ok=True)
    for camera in cameras:
        _fill_pictures(dataset, camera, cache, size, fit)
    table = dataset.hf_dataset.with_format("numpy")
    columns = {"proprio": "observation.state", "actions": "action"}
    columns["executed"] = EXECUTED if EXECUTED in table.column_names else "action"
    for name, column in columns.items():
        _save(cache / f"{name}.npy", np.stack(table[column][:]).astype(np.float32))
    episodes = np.asarray(table["episode_index"][:])
    starts = np.flatnonzero(np.diff(episodes, prepend=-1))
    task_table: Any = dataset.meta.tasks["task_index"]  # type: ignore[index]
    task_names = {int(index): str(task) for task, index in task_table.items()}
    tasks = [task_names[int(i)] for i in table["task_index"][:]]
    ends = [*starts[1:], len(episodes)]
    side_file, gripper = read_side_file(root), np.stack(table["action"][:])[:, -1]
    named = [
        _segments(dataset, range(int(a), int(b)), success=ended_well(side_file, i))
        for i, (a, b) in enumerate(zip(starts, ends, strict=True))
    ]
    middle = float(gripper.min() + gripper.max()) / 2
    segments = [
        found or segments_of_gripper(gripper[a:b], tasks[int(a)], middle)
        for found, a, b in zip(named, starts, ends, strict=True)
    ]
    write_json(
        cache / "frames.json",
        {
            "starts": starts.tolist(),
            "instructions": [tasks[int(start)] for start in starts],
            "segments": [[[s.start, s.end, s.text, s.completed] for s in episode] for episode in segments],
            "fingerprint": side_file.get("fingerprint", {}),
        },
    )


def _fill_pictures(
    dataset: Any, camera: str, cache: Path, size: tuple[int, int] | None, fit: str
) -> None:
    height, width, channels = dataset.meta.features[IMAGES + camera]["shape"]
    total = len(dataset)
    with replacing(cache / f"{camera}.npy") as part:
        height, width = size or (height, width)
        pictures = new_array(part, np.uint8, (total, height, width, channels))
        if dataset.meta.features[IMAGES + camera]["dtype"] == "image":
            column = dataset.hf_dataset.with_format(None).select_columns([IMAGES + camera])
            frames = (np.asarray(row[IMAGES + camera]) for row in column)
        else:  # videos are decoded by lerobot, as float pictures with channels first
            frames = (
                (dataset[i][IMAGES + camera].numpy().transpose(1, 2, 0) * 255).round() for i in range(total)
            )
        for i, frame in enumerate(tqdm(frames, f"decoding {camera}", total, unit="frame")):
            picture = torch.from_numpy(np.array(frame, np.uint8))[None]
            pictures[i] = fitted(picture, (height, width), fit)[0].numpy()
        pictures.flush()


def _segments(dataset: Any, span: range, *, success: bool) -> list[Segment]:
    """Segments from the language rows of an episode, if it has any."""
    table, rows = dataset.hf_dataset, []
    if "language_persistent" in table.column_names:
        rows = table.with_format(None)[span.start]["language_persistent"] or []
    return segments_of_rows(rows, dataset.meta.fps, len(span), success=success)


def _open(root: Path, cache: Path, cameras: tuple[str, ...]) -> Frames:
    meta, side_file = json.loads((cache / "frames.json").read_text()), read_side_file(root)
    robot = read_info(root).get("robot_type")
    seeds = tuple(one["seed"] for one in side_file.get("episodes", []))
    return Frames(
        images={camera: np.load(cache / f"{camera}.npy", mmap_mode="r") for camera in cameras},
        proprio=np.load(cache / "proprio.npy"),
        actions=np.load(cache / "actions.npy"),
        executed=np.load(cache / "executed.npy"),
        starts=np.array(meta["starts"], dtype=np.int64),
        instructions=tuple(meta["instructions"]),
        segments=tuple(tuple(Segment(*row) for row in episode) for episode in meta["segments"]),
        successes=tuple(ended_well(side_file, episode) for episode in range(len(meta["starts"]))),
        fingerprint=meta["fingerprint"],
        cache=cache,
        seeds=seeds if len(seeds) == len(meta["starts"]) else (),
        embodiment=embodiment_of(meta["fingerprint"], robot, root.name),
    )


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as part, part.open("wb") as stream:
        np.save(stream, array)
