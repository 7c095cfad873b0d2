"""The pictures of a saved sample in time, and sheets of many pictures that a page can hold."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import FFmpegError
from jaxtyping import UInt8
from PIL import Image

from emu_agent.errors import DatasetError
from emu_agent.evaluation.scores import SavedFrame, SavedSample

type Picture = UInt8[np.ndarray, "height width 3"]

AMPLIFIED = 2
"""How much stronger differences are shown than they are."""
LARGEST_SIDE = 224
"""Pictures on a sheet are at most as large [px]."""
QUALITY = 80
"""Of WebP: 128 px take 2 to 3 kB."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What is seen at one place of the time slider."""

    frame: int
    """Frames after the start."""
    truth: Picture
    """What happened."""
    imagined: Picture | None
    """What the model says, or saw at the start; it stays until the next one. None if it gives no pictures."""
    meant: int
    """Frame that `imagined` stands for."""
    text: str | None = None
    """Imagined step instruction."""
    true_text: str | None = None
    """Recorded step instruction."""

    @property
    def compared(self) -> bool:
        """Whether both pictures are of the same moment."""
        return self.frame == self.meant

    @property
    def difference(self) -> Picture | None:
        """How far the truth here is from what was imagined last, amplified."""
        if self.imagined is None:
            return None
        return cv2.convertScaleAbs(cv2.absdiff(self.truth, self.imagined), alpha=AMPLIFIED)


@dataclass(frozen=True)
class Sheet:
    """Many pictures in one file, row by row."""

    data: bytes
    """WebP."""
    columns: int
    """Pictures in a row."""
    rows: int
    """Rows."""

    @classmethod
    def of(cls, pictures: Sequence[Picture]) -> "Sheet":
        """Put pictures of one size on a sheet, smaller if they are large."""
        height, width = pictures[0].shape[:2]
        scale = min(1.0, LARGEST_SIDE / max(height, width))
        height, width = round(height * scale), round(width * scale)
        columns = math.ceil(math.sqrt(len(pictures)))
        rows = math.ceil(len(pictures) / columns)
        sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
        for i, picture in enumerate(pictures):
            small = (
                cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else picture
            )
            row, column = divmod(i, columns)
            sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = small
        stream = BytesIO()
        Image.fromarray(sheet).save(stream, format="webp", quality=QUALITY, method=4)
        return cls(stream.getvalue(), columns, rows)

    @property
    def address(self) -> str:
        """For a page that needs no other file."""
        return f"data:image/webp;base64,{base64.b64encode(self.data).decode()}"


def load_moments(folder: Path, sample: SavedSample) -> list[Moment]:
    """Every frame of a sample's film; of the saved frames alone if there is no film.

    Raises:
        DatasetError: A picture is not there, or cannot be read.
    """
    saved = {frame.frame: frame for frame in sample.frames}
    between = {} if sample.video is None else _truth_of_film(_inside(folder, sample.video), max(saved))
    moments, last = [], sample.frames[0]
    seen = shown = _read(folder, last.truth)
    for frame in sorted(saved | between):
        if frame in saved:
            last = saved[frame]
            truth, shown = _read(folder, last.truth), _imagined(folder, last, seen)
        else:
            truth = _fit(between[frame], seen)
        moments.append(_moment(frame, truth, shown, last))
    return moments


def _moment(frame: int, truth: Picture, imagined: Picture | None, said: SavedFrame) -> Moment:
    return Moment(
        frame=frame,
        truth=truth,
        imagined=imagined,
        meant=said.frame,
        text=said.text,
        true_text=said.true_text,
    )


def _imagined(folder: Path, frame: SavedFrame, seen: Picture) -> Picture | None:
    if frame.imagined is not None:
        return _read(folder, frame.imagined)
    return seen if frame.frame == 0 else None


def _truth_of_film(path: Path, last: int) -> dict[int, Picture]:
    """The left third of each frame of a film."""
    frames: list[Picture] = []
    try:
        with av.open(str(path)) as film:
            frames += [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    except (OSError, FFmpegError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); score again to have it written anew") from error
    return {number: frame[:, : frame.shape[1] // 3] for number, frame in enumerate(frames[: last + 1])}


def _fit(picture: Picture, like: Picture) -> Picture:
    """A film has even sides: repeat the row or column that is missing."""
    rows, columns = (max(0, a - b) for a, b in zip(like.shape[:2], picture.shape[:2], strict=True))
    padded = np.pad(picture, ((0, rows), (0, columns), (0, 0)), mode="edge")
    return padded[: like.shape[0], : like.shape[1]]


def _read(folder: Path, name: str) -> Picture:
    path = _inside(folder, name)
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error}); score again to have it written anew") from error


def _inside(folder: Path, name: str) -> Path:
    """A file of this folder: scores.json of others must not name files elsewhere."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DatasetError(f"{folder} names {name!r}, which is outside of it")
    return path
