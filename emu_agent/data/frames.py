"""The frames of a LeRobotDataset as memory-mapped arrays: what training reads thousands of times per minute.

Pictures are decoded once, in order, into `<dataset>.cache/`; after that a frame costs a copy instead of a
PNG.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from emu_agent.data.joined import Images
from emu_agent.data.segments import Segment
from emu_agent.data.split import Split, refuse_reserved, split
from emu_agent.fingerprint import DEFAULT_EMBODIMENT, embodiment_of

if TYPE_CHECKING:
    from emu_agent.data.lerobot_folder import LeRobotFolder

FORMAT = 2
"""Of the cache: what was derived otherwise is derived again."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Every frame of a dataset, in order of its episodes."""

    images: Mapping[str, Images]
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
    keys: tuple[int, ...] = ()
    """What decides which episodes are held out: the seeds, or what stands for them."""
    tasks: tuple[str, ...] = ()
    """Task of each episode: an environment's id, or the instruction where none was recorded."""
    rewards: Float32[np.ndarray, " frames"] | None = None
    """For the action of each frame, where they were recorded."""
    solved: Bool[np.ndarray, " frames"] | None = None
    """Whether the task is solved behind each frame's action, where it was recorded."""
    root: Path | None = None
    """The dataset's folder."""
    embodiment: str = DEFAULT_EMBODIMENT
    """Robot, controller and gripper in a word: decides about action bins and head."""
    members: "tuple[Frames, ...]" = ()
    """Of a mixture, the datasets in it; see `emu_agent.data.mixture`."""
    embodiments: tuple[str, ...] = ()
    """Of each episode of a mixture."""
    weights: tuple[float, ...] = ()
    """Of each episode of a mixture: how often its frames are drawn beside those of others."""
    simulate_only: tuple[bool, ...] = ()
    """Of each episode of a mixture: only what actions do is learned from it."""

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

    def episode_of(self, frame: int) -> int:
        """Episode to which a frame of the dataset belongs."""
        return int(np.searchsorted(self.starts, frame, side="right") - 1)

    def embodiment_of(self, episode: int) -> str:
        """Embodiment that acts in an episode."""
        return self.embodiments[episode] if self.embodiments else self.embodiment

    def action_dim(self, embodiment: str) -> int:
        """Components of an embodiment's actions; in a mixture there may be zeros behind them."""
        own = [one for one in self.members if one.embodiment == embodiment]
        return (own[0] if own else self).executed.shape[1]

    def demonstrations(self, episodes: Iterable[int]) -> list[int]:
        """Those of some episodes from which more than simulating is learned."""
        return [i for i in episodes if not (self.simulate_only and self.simulate_only[i])]

    def rows(self, episodes: Iterable[int]) -> Int64[np.ndarray, " rows"]:
        """Numbers of all frames of some episodes, episode by episode."""
        spans = map(self.span, episodes)
        return np.concatenate([np.arange(0), *(np.arange(span.start, span.stop) for span in spans)])

    def split(self, held_out: float) -> Split:
        """Episodes for training, and about the fraction `held_out`, which training never sees.

        Raises:
            DatasetError: one side would be empty, or the dataset holds episodes that are not for training.
        """
        refuse_reserved(self.seeds, self.root)
        return split(self.keys or self.seeds or range(self.num_episodes), held_out)

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
    """Open the dataset at `root`, decoding its images on first use.

    Args:
        root: the dataset's folder.
        cameras: whose images are wanted.
        size: height and width to which images are brought; None leaves them as they are.
        fit: how, see `emu_agent.observation.fitted`.

    Raises:
        DatasetError: no dataset there, a camera is missing (the message names those present), or it cannot be
            learned from.
    """
    from emu_agent.data.frame_cache import fill
    from emu_agent.data.lerobot_folder import LeRobotFolder

    folder = LeRobotFolder(root)
    if all(folder.camera(camera).size == size for camera in cameras):
        size = None
    brought = [] if size is None else [size] if fit == "resize" else [size, fit]
    content = [FORMAT, _files(root), sorted(cameras), *brought]
    cache = cache_of(root) / hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    if not (cache / "frames.json").exists():
        fill(folder, cache, cameras, size, fit)
    return _open(folder, cache, cameras)


def cache_of(root: Path) -> Path:
    """Folder for what is derived from the dataset at `root`: beside it, or in the user's own cache."""
    beside = root.with_name(root.name + ".cache")
    if os.access(beside if beside.exists() else beside.parent, os.W_OK):
        return beside
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
    return Path(base) / "emu-agent" / f"{root.name}-{place}"


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


def _open(folder: "LeRobotFolder", cache: Path, cameras: Sequence[str]) -> Frames:
    meta = json.loads((cache / "frames.json").read_text())
    arrays = {name: cache / f"{name}.npy" for name in ("proprio", "actions", "executed", "rewards", "solved")}
    values: dict[str, Any] = {name: np.load(path) for name, path in arrays.items() if path.exists()}
    rows = ("instructions", "tasks", "seeds", "keys", "successes")
    values |= {name: tuple(meta[name]) for name in rows}
    return Frames(
        images={camera: np.load(cache / f"{camera}.npy", mmap_mode="r") for camera in cameras},
        **values,
        starts=np.array(meta["starts"], dtype=np.int64),
        segments=tuple(tuple(Segment(*row) for row in episode) for episode in meta["segments"]),
        fingerprint=meta["fingerprint"],
        cache=cache,
        root=folder.root,
        embodiment=embodiment_of(meta["fingerprint"], folder.robot_type, folder.root.name),
    )
