"""Recordings from the folder of `emu-agent run`: its films hold the pictures, and nothing holds the actions.

The camera's part of each panel is cut out and made small again. It went through a video encoder, so that
scores on films are not to be compared with scores on datasets.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import yaml
from av.error import FFmpegError
from jaxtyping import UInt8

from emu_agent.data.segments import segments_of_gripper
from emu_agent.errors import DatasetError
from emu_agent.evaluation.recordings import EpisodeError, Facts, Recording
from emu_agent.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class FilmLayout:
    """Where in a panel the camera's picture is [pixels]."""

    x: int
    """Left edge."""
    y: int
    """Upper edge."""
    width: int
    """Of the enlarged picture."""
    height: int
    """Of the enlarged picture."""


class RunSource:
    """Films of a run as recordings: pictures only.

    Args:
        root: The run's folder.
        instruction: The task in words, which films do not tell.
        layout: Where the camera's picture is.

    Raises:
        DatasetError: The folder holds no finished run with films.
    """

    def __init__(self, root: Path, instruction: str, layout: FilmLayout) -> None:
        self._folder, self._instruction, self._layout = RunFolder(root), instruction, layout
        if not self._folder.summary_file.exists():
            raise DatasetError(f"{root} is no finished run; `emu-agent run output={root}` makes or ends one")
        config = yaml.safe_load(self._folder.config_file.read_text(encoding="utf-8"))
        summary = yaml.safe_load(self._folder.summary_file.read_text(encoding="utf-8"))
        self._steps = {int(one["seed"]): int(one["steps"]) for one in summary["episodes"]}
        seeds = [seed for seed in self._steps if self._folder.video_file(seed).exists()]
        if not seeds:
            raise DatasetError(f"{root} has no films; run with video=true to have something to score")
        side = int(summary["fingerprint"]["image_size"])
        self.facts = Facts(
            path=str(root),
            kind="run",
            fps=float(summary["fingerprint"]["control_hz"]),
            camera=str(config["camera"]),
            cameras=(str(config["camera"]),),
            size=(side, side),
            episodes=tuple(sorted(seeds)),
            keys=tuple(sorted(seeds)),
            holds=frozenset(),
            action_dim=None,
            fingerprint=summary["fingerprint"],
            digest=hashlib.sha256(self._folder.summary_file.read_bytes()).hexdigest()[:16],
        )

    def read(self, episode: int) -> Recording:
        """Read one film.

        Raises:
            EpisodeError: it cannot be decoded, or is shorter than its episode.
        """
        wanted = self._steps[episode] + 1
        pictures = []
        try:
            with av.open(str(self._folder.video_file(episode))) as film:
                for frame in film.decode(video=0):
                    pictures.append(self._cut(frame.to_ndarray(format="rgb24")))
                    if len(pictures) == wanted:
                        break
        except (FFmpegError, OSError, IndexError) as error:  # the last: a file without a video stream
            raise EpisodeError(f"its film cannot be decoded: {error}") from error
        if len(pictures) < wanted:
            raise EpisodeError(f"its film has {len(pictures)} frames, the episode {wanted}")
        return Recording(
            index=episode,
            pictures=np.stack(pictures),
            instruction=self._instruction,
            actions=None,
            segments=tuple(segments_of_gripper(np.zeros(wanted, np.float32), self._instruction)),
            has_steps=False,
        )

    def _cut(self, panel: UInt8[np.ndarray, "rows cols 3"]) -> UInt8[np.ndarray, "height width 3"]:
        box = self._layout
        view = panel[box.y : box.y + box.height, box.x : box.x + box.width]
        if view.shape[:2] != (box.height, box.width):
            raise EpisodeError("its film has no panel of `emu-agent run`")
        height, width = self.facts.size
        return cv2.resize(view, (width, height), interpolation=cv2.INTER_AREA)
