"""Scores a world model on recorded episodes: asks it, judges it, keeps every finished episode, sums up."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from emu_agent.data.split import split
from emu_agent.errors import ConfigError, DatasetError
from emu_agent.evaluation.adapters.protocol import Digested, WorldModelAdapter
from emu_agent.evaluation.asking import ask
from emu_agent.evaluation.branches import Branches, with_controls
from emu_agent.evaluation.cases import Case, cases_of
from emu_agent.evaluation.controls import CONTROLS, Answer, truth_and_controls
from emu_agent.evaluation.fit import refuse_misfit
from emu_agent.evaluation.judging import Judge
from emu_agent.evaluation.metrics.lite0 import Lite0
from emu_agent.evaluation.metrics.table import METRICS, Metric
from emu_agent.evaluation.parts import Parts, rows_of, write_samples
from emu_agent.evaluation.recordings import Facts, Reader, Recording, Source
from emu_agent.evaluation.samples import SampleConfig
from emu_agent.evaluation.scores import (
    MODEL,
    TRUTH,
    ActionSensitivity,
    Candidate,
    MetricScores,
    Missing,
    Scores,
    Skipped,
)
from emu_agent.evaluation.skill import Image, constant_images
from emu_agent.evaluation.summary import group, summarize_metrics, summarize_overall

CONSTANTS_FROM = (32, 8)
"""Episodes at most, and frames of each, from which the constant images are made."""

NO_BRANCHES = (
    Missing(
        what="branches",
        metrics=("overall score", "action sensitivity"),
        reason="no branches=DATASET was given (`emu-agent collect branches=8` records them)",
    ),
)

type Pending = list[Future[list[dict[str, Any]]]]
"""Rows of the answers about one episode, as soon as they have been judged."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What is scored."""

    samples: SampleConfig = field(default_factory=SampleConfig)
    """Which moments, and how far ahead."""
    held_out: float = 0.1
    """Share of the episodes that training has not seen; 1 scores all."""
    episodes: int | None = None
    """How many of them, evenly spaced; None is all."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out <= 1:
            raise ConfigError(f"held_out={self.held_out} must be above 0 and at most 1")
        if self.episodes is not None and self.episodes < 1:
            raise ConfigError(f"episodes={self.episodes} must be at least 1, or null for all")

    def choose(self, facts: Facts) -> list[int]:
        """The episodes that are asked for."""
        unseen = facts.episodes
        if self.held_out < 1:
            unseen = [facts.episodes[i] for i in split(facts.keys, self.held_out).held_out]
        if self.episodes is None or self.episodes >= len(unseen):
            return list(unseen)
        return [unseen[i * len(unseen) // self.episodes] for i in range(self.episodes)]


@dataclass(frozen=True)
class Scorer:
    """One model on one source of recordings."""

    source: Source
    """Where recordings come from."""
    adapter: WorldModelAdapter
    """The model."""
    network: Lite0 | None
    """Compares images as a trained eye does; None leaves these metrics out."""
    config: ScoreConfig
    """What is scored."""
    missing: tuple[Missing, ...] = ()
    """What is left out, and why."""
    workers: int = 1
    """Threads that judge answers, beside the one that asks."""
    branches: Branches | None = None
    """Counterfactual chunks by which action sensitivity is measured; None leaves it out."""

    def run(self, folder: Path) -> tuple[Scores, pa.Table, Reader]:
        """Score what is not yet finished, write samples.parquet, and sum up.

        Raises:
            ConfigError: The model does not take the pictures, actions or horizons.
            DatasetError: No episode could be scored.
        """
        refuse_misfit(self.source.facts, self.adapter, self.config.samples.chunk)
        chosen = self.config.choose(self.source.facts)
        reader = Reader(self.source, self.config.samples.chunk + 1)
        actions = None if self.branches is None else with_controls(self.adapter, self.branches)
        parts, constants = Parts(folder, self._key(chosen)), _constants(reader, chosen)
        with ThreadPoolExecutor(self.workers) as pool:
            self._score(reader, parts, chosen, constants, pool)
        scored = [episode for episode in chosen if parts.has(episode)]
        if not scored:
            reasons = "; ".join(f"episode {e}: {why}" for e, why in list(reader.bad.items())[:3])
            raise DatasetError(f"none of {len(chosen)} episodes could be scored ({reasons})")
        table = parts.table(scored)
        write_samples(folder, table)
        return self._summarize(table, scored, reader.bad, actions), table, reader

    def _score(
        self, reader: Reader, parts: Parts, chosen: list[int], constants: Mapping[str, Image], pool: Executor
    ) -> None:
        """Ask about an episode while the answers of the one before are judged."""
        before: tuple[int, Pending] | None = None
        with tqdm(chosen, "scoring", unit="episode") as bar:
            for place, episode in enumerate(bar):
                rows = None
                try:
                    rows = None if parts.has(episode) else self._ask(reader, chosen, place, constants, pool)
                finally:  # the episode before is answered, whatever became of this one
                    if before is not None:
                        _keep(parts, *before)
                before = None if rows is None else (episode, rows)
                bar.set_postfix(skipped=len(reader.bad))
            if before is not None:
                _keep(parts, *before)

    def _ask(
        self, reader: Reader, chosen: list[int], place: int, constants: Mapping[str, Image], pool: Executor
    ) -> "Pending | None":
        """All answers about an episode, in the judges' hands; None if it cannot be read."""
        recording = reader.read(chosen[place])
        if recording is None:
            return None
        needed = min(len(recording), self.config.samples.horizons[-1] + 1)
        partner = self._partner(reader, [*chosen[place + 1 :], *chosen[:place]], needed)
        pending: Pending = []
        for case in cases_of(recording, partner, self.config.samples, constants):
            if answers := ask(self.adapter, case, self.config.samples.seed):
                pending += self._submit(case, [*answers, *truth_and_controls(case)], pool)
        return pending

    def _submit(self, case: Case, answers: Sequence[Answer], pool: Executor) -> "Pending":
        judge = Judge(case, self.network)
        return [pool.submit(_rows, case, answer, judge) for answer in answers]

    def _partner(self, reader: Reader, others: Iterable[int], needed: int) -> Recording | None:
        """The next episode that is long enough."""
        for episode in others:
            found = reader.read(episode)
            if found is not None and len(found) >= needed:
                return found
        return None

    def _summarize(
        self,
        table: pa.Table,
        scored: list[int],
        bad: Mapping[int, str],
        actions: Mapping[str, ActionSensitivity] | None,
    ) -> Scores:
        groups = group(table)
        metrics = summarize_metrics(groups)
        candidates = dict.fromkeys(name for _, name in groups)
        return Scores(
            dataset=self._dataset(),
            model=self._model(),
            settings={
                **_plain(self.config),
                "branches": None if self.branches is None else str(self.branches.root),
            },
            scored=tuple(scored),
            skipped=tuple(Skipped(episode=str(e), reason=why) for e, why in sorted(bad.items())),
            missing=(*self._missing(metrics), *self.missing, *(NO_BRANCHES if actions is None else ())),
            candidates=tuple(_described(name) for name in (MODEL, TRUTH, *CONTROLS) if name in candidates),
            overall=summarize_overall(groups, actions),
            metrics=tuple(metrics),
            samples=(),
        )

    def _missing(self, metrics: list[MetricScores]) -> list[Missing]:
        """What the dataset does not hold and the model cannot do, with the rows that are empty for it."""
        facts, abilities = self.source.facts, self.adapter.abilities
        empty = {m.name for m in metrics if not any(point.candidate == MODEL for point in m.curve)}
        lacks = {
            "actions": ("the dataset has no action", "actions" in facts.holds),
            "steps": ("the dataset has no step instructions", "steps" in facts.holds),
            "simulate": (f"{self.adapter.name} cannot be given actions", abilities.simulate),
            "imagine": (f"{self.adapter.name} cannot imagine without actions", abilities.imagine),
            "texts": (f"{self.adapter.name} gives no step instructions", abilities.texts),
        }
        found = []
        for what, (reason, there) in lacks.items():
            if not there:
                rows = tuple(name for name in METRICS if name in empty and _needs(METRICS[name], what))
                found.append(Missing(what=what, metrics=rows, reason=reason))
        return found

    def _dataset(self) -> dict[str, Any]:
        facts = self.source.facts
        return {**_plain(facts), "holds": sorted(facts.holds), "episodes": len(facts.episodes)}

    def _model(self) -> dict[str, Any]:
        digest = self.adapter.digest() if isinstance(self.adapter, Digested) else None
        return {"name": self.adapter.name, "digest": digest, "abilities": _plain(self.adapter.abilities)}

    def _key(self, chosen: list[int]) -> dict[str, Any]:
        """What the rows depend on."""
        return {
            "dataset": self._dataset(),
            "model": self._model(),
            "samples": _plain(self.config.samples),
            "network": self.network is not None,
            "constants": chosen,
        }


def _constants(reader: Reader, chosen: list[int]) -> dict[str, Image]:
    """Constant images, from some frames of some episodes.

    Raises:
        DatasetError: No episode can be read.
    """
    most, each = CONSTANTS_FROM
    found = (reader.read(chosen[i]) for i in np.unique(np.linspace(0, len(chosen) - 1, most).astype(int)))
    pictures = [one.pictures[np.linspace(0, len(one) - 1, each).astype(int)] for one in found if one]
    if not pictures:
        reasons = "; ".join(f"episode {e}: {why}" for e, why in list(reader.bad.items())[:3])
        raise DatasetError(f"none of {len(chosen)} episodes could be read ({reasons})")
    return constant_images(np.concatenate(pictures))


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as it reads back from JSON."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _needs(metric: Metric, what: str) -> bool:
    """Whether a metric has no row without this."""
    if what in ("texts", "imagine"):
        return "steps" in metric.needs
    return what in metric.needs or (what == "simulate" and "actions" in metric.needs)


def _described(name: str) -> Candidate:
    own = {MODEL: "what the model says will follow", TRUTH: "what followed"}
    if name in own:
        return Candidate(name=name, of=name, meaning=own[name])
    return Candidate(name=name, of=CONTROLS[name].of, meaning=CONTROLS[name].meaning)


def _rows(case: Case, answer: Answer, judge: Judge) -> list[dict[str, Any]]:
    return rows_of(case, answer, judge.judge(answer))


def _keep(parts: Parts, episode: int, pending: Pending) -> None:
    parts.write(episode, [row for rows in pending for row in rows.result()])
