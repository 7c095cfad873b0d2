"""What a scoring run leaves: the schema of scores.json and of samples.parquet, and reading both back.

scores.json depends on dataset, model and settings only: the same command gives the same bytes. When, where
and how long is in run.json beside it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Shaped

from emu_agent.errors import DatasetError
from emu_agent.evaluation.statistics import Interval
from emu_agent.run_folder import write_json

SCORES_FILE = "scores.json"
SAMPLES_FILE = "samples.parquet"
RUN_FILE = "run.json"
FORMAT = "emu-agent scores"
FORMAT_VERSION = 2

MODES = {
    "simulate": "recorded actions are given, chunk after chunk, each from the frame imagined before",
    "imagine": "only frame and instruction are given; step instructions and keyframes are imagined",
}
"""How a future was asked for."""

MODEL = "model"
TRUTH = "truth"

KEY_COLUMNS = ("episode", "start", "mode", "step", "frames", "candidate", "text", "true_text", "log_prob")
"""Columns of samples.parquet before those of the metrics; a row is one future of a sample after one step."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval from drawing episodes anew (bootstrap)."""

    mean: float | None
    """None where nothing could be measured."""
    low: float | None
    """Lower end of the interval; None with fewer than `FEW_EPISODES`."""
    high: float | None
    """Upper end of the interval."""
    episodes: int
    """Episodes that contribute."""
    samples: int
    """Samples that contribute."""

    @classmethod
    def of(cls, interval: Interval, episodes: Shaped[np.ndarray, " samples"]) -> "Estimate":
        """An interval, with the episodes of the samples that it rests on."""
        numbers = interval.to_dict()
        return cls(
            mean=numbers["value"],
            low=numbers["low"],
            high=numbers["high"],
            episodes=len(np.unique(episodes)),
            samples=len(episodes),
        )


NOTHING = Estimate(mean=None, low=None, high=None, episodes=0, samples=0)
"""What could not be measured."""


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
    """Whether a metric ranks a control below the truth."""

    control: str
    """Name of the control."""
    mode: str
    """A name of `MODES`."""
    difference: Estimate
    """How much better the truth is, paired by sample, in the metric's better direction."""
    below: bool
    """True if the whole interval is above zero; where there is none, if the difference is."""


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
class ActionSensitivity:
    """How the model's futures change with the actions, against what other actions really led to."""

    value: Estimate
    """Mean of the three figures, each from -1 to 1."""
    skill: Estimate
    """Skill on the chunks that are not the episode's own."""
    correlation: Estimate
    """Of predicted and true difference to the future of the episode's own chunk."""
    found: Estimate
    """How often the true chunk is found among those of its state, above chance: 0 is chance, 1 always."""
    skill_own: Estimate
    """Skill on the episode's own chunks."""
    found_share: float
    """How often it is found."""
    chance: float
    """How often it would be by guessing."""
    by_chunk: dict[str, dict[str, float | None]]
    """Skill and correlation by kind of chunk."""
    states: int
    """Saved states."""
    branches: int
    """Chunks played from them."""


@dataclass(frozen=True, kw_only=True)
class NegativeCheck:
    """Whether what must not score does not."""

    control: str
    """What was given in place of the model's answer."""
    figure: str
    """The figure it is meant to fool."""
    value: Estimate
    """That figure; at or below zero if it is not fooled."""
    passed: bool
    """Whether the figure is not fooled; what could not be measured has not passed."""


@dataclass(frozen=True, kw_only=True)
class Overall:
    """The one number and its parts; 0 is what needs no world model, 1 is the truth."""

    value: Estimate
    """Mean of skill and action sensitivity; nothing if one of them could not be measured."""
    verdict: str
    """What the figures say, in a sentence."""
    skill: Estimate
    """Skill under the recorded actions, or of what is imagined where nothing can be simulated."""
    curve: tuple[Point, ...]
    """Skill by candidate, mode and step."""
    action_sensitivity: ActionSensitivity | None
    """None without branches."""
    negative_checks: tuple[NegativeCheck, ...]
    """Of every negative control."""


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
    """Skill of this sample."""
    instruction: str
    """Task in words."""
    frames: tuple[SavedFrame, ...]
    """In order."""
    video: str | None
    """Truth, imagination and difference side by side, from the run's folder."""


@dataclass(frozen=True)
class _About:
    format: str
    format_version: int


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
    overall: Overall
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
            about = msgspec.json.decode(path.read_bytes(), type=_About)
            if (about.format, about.format_version) == (FORMAT, 1):
                raise DatasetError(
                    f"{path} has a headline of version 1, which a constant image could raise; it is called "
                    "the overall score now and made of other figures: score again"
                )
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
