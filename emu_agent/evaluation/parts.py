"""Finished episodes on disk, one Parquet file each, written whole or not at all: a killed run goes on there.

A row is one candidate's future of one sample after one step. Parts hold more than samples.parquet: pictures
that the model drew.
"""

import hashlib
import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt8
from PIL import Image

from emu_agent.evaluation.cases import Case
from emu_agent.evaluation.controls import Answer
from emu_agent.evaluation.metrics.table import METRICS
from emu_agent.evaluation.scores import MODEL, SAMPLES_FILE
from emu_agent.evaluation.skill import ERRORS
from emu_agent.run_folder import replacing

PICTURE = "picture"
NUMBERS = ["skill", *ERRORS, *METRICS]
"""Columns of metrics, and of the errors that skill is made of."""

SCHEMA = pa.schema([
    ("episode", pa.int32()),
    ("start", pa.int32()),
    ("mode", pa.string()),
    ("step", pa.int32()),
    ("frames", pa.int32()),
    ("candidate", pa.string()),
    ("text", pa.string()),
    ("true_text", pa.string()),
    ("log_prob", pa.float64()),
    *[(name, pa.float64()) for name in NUMBERS],
    (PICTURE, pa.binary()),
])  # fmt: skip


class Parts:
    """The finished episodes of one run.

    Args:
        folder: The run's folder.
        key: What the numbers depend on; parts of another key are not used.
    """

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        text = json.dumps(key, sort_keys=True, default=str)
        self._folder = folder / "parts" / hashlib.sha256(text.encode()).hexdigest()[:12]

    def has(self, episode: int) -> bool:
        """Whether an episode is finished."""
        return self._file(episode).exists()

    def write(self, episode: int, rows: Sequence[dict[str, Any]]) -> None:
        """Keep the rows of a finished episode."""
        with replacing(self._file(episode)) as part:
            pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), part)

    def table(self, episodes: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of some episodes, in this order."""
        names = None if columns is None else list(columns)
        tables = [pq.read_table(self._file(episode), columns=names) for episode in episodes]
        return pa.concat_tables(tables) if tables else SCHEMA.empty_table().select(names or SCHEMA.names)

    def _file(self, episode: int) -> Path:
        return self._folder / f"{episode:05d}.parquet"


def rows_of(case: Case, answer: Answer, columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """One row per sample and known step."""
    rows = []
    for i, k in np.argwhere(case.known):
        rows.append(
            {
                "episode": case.episode,
                "start": int(case.starts[i]),
                "mode": case.mode,
                "step": int(k) + 1,
                "frames": int(case.ahead[i, k]),
                "candidate": answer.candidate,
                "text": None if answer.texts is None else answer.texts[i][k],
                "true_text": None if case.texts is None else case.texts[i][k],
                "log_prob": None if answer.log_prob is None else float(answer.log_prob[i, k]),
                **{name: _number(float(values[i, k])) for name, values in columns.items()},
                PICTURE: as_png(answer.pictures[i, k]) if answer.candidate == MODEL else None,
            }
        )
    return rows


def write_samples(folder: Path, table: pa.Table) -> None:
    """Write samples.parquet: every row, and the metrics that could be measured."""
    empty = {PICTURE, *(name for name in NUMBERS if table[name].null_count == len(table))}
    with replacing(folder / SAMPLES_FILE) as part:
        pq.write_table(table.select([name for name in table.column_names if name not in empty]), part)


def as_png(picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """A picture in a file's bytes, without loss."""
    stream = BytesIO()
    Image.fromarray(picture).save(stream, format="png", compress_level=1)
    return stream.getvalue()


def from_png(data: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """The picture again."""
    return np.asarray(Image.open(BytesIO(data)))


def _number(value: float) -> float | None:
    """What is NaN or infinite has no place in a table of measurements."""
    return value if np.isfinite(value) else None
