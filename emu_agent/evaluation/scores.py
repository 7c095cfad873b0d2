"""What a scoring run leaves: the schema of scores.json and of samples.parquet, and reading both back.

scores.json depends on dataset, model and settings only: the same command gives the same bytes. When, where
and how long is in run.json beside it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from emu_agent.errors import DatasetError
from emu_agent.run_folder import write_json

SCORES_FILE = "scores.json"
SAMPLES_FILE = "samples.parquet"
RUN_FILE = "run.json"
FORMAT = "emu-agent scores"
FORMAT_VERSION = 1

MODES = {
    "simulate": "recorded actions are given, chunk after chunk, each from the frame imagined before",
    "simulate_anchored": "the same, but every chunk begins at the real frame",
    "imagine": "only frame and instruction are given; step instructions and keyframes are imagined",
}
"""How a future was asked for."""

MODEL = "model"
TRUTH = "truth"

KEY_COLUMNS = ("episode", "start", "mode", "step", "frames", "candidate", "text", "true_text", "log_prob")
"""Columns of samples.parquet before those of the metrics; a row is one future of a sample after one step."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over episodes, with a 95 % interval from drawing episodes anew (bootstrap)."""

    mean: float | None
    """None where nothing could be measured."""
    low: float | None
    """Lower end of the interval."""
    high: float | None
    """Upper end of the interval."""
    episodes: int
    """Episodes that contribute."""
    samples: int
    """Samples that contribute."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a curve by horizon."""

    candidate: str
    """Whose futures: the model's, the truth's or a control's."""
    mode: str
    """A name of `MODES`."""
    step: int
    """Chunks simulated, or steps imagined; 0 is all of them together."""
    frames: float
    """How far ahead, on average [frames]."""
    value: Estimate
    """The metric there."""


@dataclass(frozen=True, kw_only=True)
class ControlCheck:
    """Whether a metric ranks a control below what it is a control of."""

    control: str
    """Name of the control."""
    mode: str
    """A name of `MODES`."""
    against: str
    """What should be better: the truth, or the model with its input unspoilt."""
    difference: Estimate
    """How much better it is, paired by sample, in the metric's better direction."""
    below: bool
    """True if the whole interval is above zero."""


@dataclass(frozen=True, kw_only=True)
class MetricScores:
    """Everything about one metric."""

    name: str
    """Its column in samples.parquet."""
    unit: str
    """Unit, or "1"."""
    direction: str
    """`higher` or `lower`: which is better."""
    meaning: str
    """One line."""
    source: str
    """Where its definition comes from."""
    applicable: bool
    """False if a control is not ranked below the truth on this dataset, or nothing could be measured."""
    why_not: str | None
    """Why it is not applicable, in words."""
    curve: tuple[Point, ...]
    """Means of every candidate by mode and step."""
    checks: tuple[ControlCheck, ...]
    """What decides about `applicable`."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The one number, its parts and its controls; 0 is repeating the frame, 1 is the truth."""

    value: Estimate
    """Mean of the parts that could be measured."""
    parts: dict[str, Estimate]
    """`foresight` and `following`."""
    curve: tuple[Point, ...]
    """By candidate, mode and step."""
    checks: tuple[ControlCheck, ...]
    """The truth against every control."""
    meaning: str
    """One line."""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Rows that this dataset or model cannot have."""

    what: str
    """What is not there: `steps`, `actions`, a camera, or an ability of the model."""
    metrics: tuple[str, ...]
    """Metrics that are left out for it."""
    reason: str
    """In words."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An episode that could not be scored."""

    episode: str
    """Its name in the dataset."""
    reason: str
    """In words."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A kind of future that was scored."""

    name: str
    """As in the column `candidate`."""
    of: str
    """`truth` or `model`: what was spoilt; the two themselves name themselves."""
    meaning: str
    """One line."""


@dataclass(frozen=True, kw_only=True)
class SavedFrame:
    """One moment of a saved sample."""

    frame: int
    """Frames after the start; 0 is the frame that the model saw."""
    truth: str
    """Picture file, from the run's folder."""
    imagined: str | None
    """Picture file; None at the start and where the model has no picture."""
    text: str | None
    """Imagined step instruction."""
    true_text: str | None
    """Recorded step instruction."""


@dataclass(frozen=True, kw_only=True)
class SavedSample:
    """A sample whose pictures were kept."""

    episode: int
    """Number of the episode in the dataset."""
    start: int
    """Frame of the episode that the model saw."""
    mode: str
    """A name of `MODES`."""
    why: str
    """`best`, `worst` or `random`."""
    score: float
    """Headline of this sample; of `imagine`, its foresight."""
    instruction: str
    """Task in words."""
    frames: tuple[SavedFrame, ...]
    """In order."""
    video: str | None
    """Truth, imagination and difference side by side, from the run's folder."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The content of scores.json."""

    format: str = FORMAT
    """Always the same."""
    format_version: int = FORMAT_VERSION
    """Grows when a reader has to change."""
    dataset: dict[str, Any]
    """Path, kind, fps, camera, size, fingerprint."""
    model: dict[str, Any]
    """Name, settings and, of a checkpoint, a digest of its weights."""
    settings: dict[str, Any]
    """What decides about the samples."""
    scored: tuple[int, ...]
    """Episodes that were scored."""
    skipped: tuple[Skipped, ...]
    """Episodes that could not be."""
    missing: tuple[Missing, ...]
    """What the dataset or the model lacks."""
    candidates: tuple[Candidate, ...]
    """Whose futures were scored."""
    headline: Headline
    """The one number."""
    metrics: tuple[MetricScores, ...]
    """Every metric, in the order of the report."""
    samples: tuple[SavedSample, ...]
    """Samples whose pictures were kept: best, worst and random."""

    def write(self, folder: Path) -> None:
        """Write scores.json."""
        write_json(folder / SCORES_FILE, msgspec.to_builtins(self))

    @classmethod
    def read(cls, folder: Path) -> "Scores":
        """Read scores.json.

        Raises:
            DatasetError: there is none, or it is none of this format.
        """
        path = folder / SCORES_FILE
        try:
            scores = msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError as error:
            raise DatasetError(f"no {path}; `emu-agent score output={folder}` writes it") from error
        except msgspec.DecodeError as error:
            raise DatasetError(f"{path} holds no scores that this version reads ({error})") from error
        if (scores.format, scores.format_version) != (FORMAT, FORMAT_VERSION):
            raise DatasetError(
                f"{path} is {scores.format!r} {scores.format_version}, this reads {FORMAT!r} {FORMAT_VERSION}"
            )
        return scores
