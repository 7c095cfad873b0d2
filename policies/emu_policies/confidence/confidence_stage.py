"""Stage 4: how likely an imagination is to be achieved, fitted to episodes in which things go wrong."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from emu_agent.data.codes import load_codes
from emu_agent.data.frames import Frames, load_frames
from emu_agent.data.plans import Plans
from emu_agent.data.split import seeds_for
from emu_agent.episodes.environment import fingerprint_of, subtask_instructions_of
from emu_agent.errors import DatasetError
from emu_agent.evaluation.metrics.usefulness import auroc, brier, calibration_error
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.tokens.text import TEXT_FILE
from emu_agent.training.stage import WHOLE, Share, StepResult
from emu_agent.training.starting import carry_over, starting_folder
from emu_agent.training.upstream import refuse_other_data
from emu_agent.world_model import checkpoint
from emu_policies.confidence.confidence_data import Decisions, as_tensors, judged, play_all, step_horizon
from emu_policies.confidence.confidence_score import PART, ConfidenceConfig, ConfidenceScore
from emu_policies.head.head_stage import HALF
from emu_policies.head.loading import load_head
from emu_policies.head.normalizer import Normalizer
from emu_policies.planning.imagination_policy import ImaginationPolicy, ImaginationPolicyConfig


@dataclass(frozen=True, kw_only=True)
class ConfidenceStageConfig:
    """What the confidence score is fitted to."""

    held_out: float = 0.1
    """Share of the dataset's episodes, chosen by seed, that nothing is fitted to."""
    fit_seed: int = 40_000
    """First episode that is played to fit the score; a seed of training."""
    fit_episodes: int = 96
    """How many of these."""
    test_seed: int = 50_000
    """First episode that is played to test it, and to choose a threshold; a seed of validation."""
    test_episodes: int = 64
    """How many of these."""
    max_steps: int = 100
    """Control steps after which an episode is given up."""
    share: float = 0.8
    """An imagined step should be done within the time in which this share of the recorded ones was."""
    start: str | None = None
    """Agent checkpoint whose score is fitted further, `bundled` for the one inside the package."""
    threshold: float | None = None
    """`confidence_threshold` that the checkpoint recommends; None leaves its policy as it is."""


class ConfidenceStage:
    """Fits a `ConfidenceScore` for the agent of a checkpoint.

    Args:
        agent: checkpoint folder of stage 3.
        dataset: folder of the LeRobotDataset that it was trained on; tells what frames and actions are usual.
        env: where the episodes are played; its episodes are what the score is calibrated for. It is closed.
        score: fields of `ConfidenceConfig`; sizes that follow from data and model are filled in.
        settings: fields of `ConfidenceStageConfig`.

    Raises:
        DatasetError: all imaginations were achieved, or none.
        ConfigError: seeds are not for what they are used for.
    """

    unit = "decisions"

    def __init__(
        self,
        agent: str,
        dataset: str,
        env: gymnasium.Env,
        score: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.source, self.settings = starting_folder(agent), ConfidenceStageConfig(**settings)
        self.base = checkpoint.read_config(self.source)
        engine, head = ImaginationEngine.from_pretrained(self.source), load_head(self.source)
        camera, size = head.config.camera, tuple(self.base["image_size"])
        frames = load_frames(Path(dataset), [camera], size, self.base.get("fit", "resize"))
        refuse_other_data(self.source, frames, camera)
        self.dataset = frames.digest()
        codes = load_codes(frames, camera, engine.image_tokenizer)
        known, _ = frames.split(self.settings.held_out)
        lengths = [s.end - s.start for e in known for s in frames.segments[e] if s.completed]
        self.config = ConfidenceConfig.from_dict({
            **(score or {}), "num_cells": codes[0].numel(), "num_codes": engine.image_tokenizer.num_codes,
            "action_dim": frames.actions.shape[1], "horizon": step_horizon(lengths, self.settings.share),
        })  # fmt: skip
        config = ImaginationPolicyConfig.from_dict(
            {**self.base.get("policy", {}), "confidence_threshold": None}
        )
        self.tables = ConfidenceScore(self.config)
        self._fit_tables(frames, codes, engine, known, config.n_action_steps)
        policy = ImaginationPolicy(engine, head, config, confidence=self.tables, compare=True)
        try:
            self.fit, self.test = self._decisions(frames, policy, env)
        finally:
            env.close()
        for name, decisions in (("fit_episodes", self.fit), ("test_episodes", self.test)):
            if not 0 < (true := int(decisions.achieved.sum())) < len(decisions.achieved):
                raise DatasetError(
                    f"{true} of {len(decisions.achieved)} imaginations were achieved; "
                    f"a confidence score needs some of each: raise {name}, or train the agent longer"
                )

    def sources(self) -> dict[str, str]:
        """Return digests of the checkpoint before and of the dataset."""
        return {"checkpoint": checkpoint.weights_digest(self.source), "dataset": self.dataset}

    def build(self) -> nn.Module:
        """Return a new score with its tables and the statistics of the signals."""
        score = ConfidenceScore(self.config)
        score.load_state_dict(dict(self.tables.named_buffers()), strict=False)  # the network begins anew
        if self.settings.start is not None:
            folder, own = starting_folder(self.settings.start), dict(score.named_parameters())
            weights = {key: t for key, t in checkpoint.read_part(folder, PART)[1].items() if key in own}
            carry_over(score, {**score.state_dict(), **weights}, folder)
        signals, _ = as_tensors(self.fit)
        score.normalizer = Normalizer(signals.mean(dim=0), signals.std(dim=0))
        return score

    def step(self, model: nn.Module, rng: np.random.Generator, share: Share = WHOLE) -> StepResult:
        """Cross-entropy over all decisions of the fit."""
        device = next(model.parameters()).device
        signals, labels = (tensor[share.index :: share.count].to(device) for tensor in as_tensors(self.fit))
        loss = F.binary_cross_entropy_with_logits(model(signals), labels)
        return StepResult(loss, {}, len(labels), len(labels))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Ranking and calibration on the test episodes."""
        device = next(model.parameters()).device
        signals, _ = as_tensors(self.test)
        confidence = model(signals.to(device)).sigmoid().cpu().numpy().astype(np.float64)
        return {
            "auroc": auroc(confidence, self.test.achieved),
            "brier": brier(confidence, self.test.achieved),
            "calibration_error": calibration_error(confidence, self.test.achieved),
            "achieved": float(self.test.achieved.mean()),
            "decisions": float(len(confidence)),
        }

    def show(self, model: nn.Module, folder: Path, update: int) -> None:
        """Nothing to see: `benchmarks/confidence_score.py` draws the reliability diagram."""

    def save(self, model: nn.Module, folder: Path, training: dict[str, Any]) -> None:
        """Write the agent with its confidence score."""
        policy = dict(self.base.get("policy", {}))
        if self.settings.threshold is not None:
            policy["confidence_threshold"] = self.settings.threshold
        base_parts = {name: part for name, part in self.base["parts"].items() if name != PART}
        config = {
            **self.base,
            "parts": {**base_parts, PART: self.config.to_dict()},
            "policy": policy,
            "training": {**self.base["training"], PART: {**training, "data": asdict(self.settings)}},
        }
        tensors = {f"{PART}.{key}": value for key, value in model.state_dict().items()}
        for part in base_parts:
            _, stored = checkpoint.read_part(self.source, part)
            tensors |= {f"{part}.{key}": value for key, value in stored.items()}
        text = {TEXT_FILE: (self.source / TEXT_FILE).read_bytes()}
        checkpoint.write_checkpoint(folder, config, tensors, text, dtype=HALF)

    def _fit_tables(
        self, frames: Frames, codes: torch.Tensor, engine: ImaginationEngine, known: Sequence[int], steps: int
    ) -> None:
        """What frames and actions are usual, from the training episodes."""
        found = Plans(frames, known, 1)
        candidates = [plan for plan in found if plan.frame + steps <= frames.span(plan.episode).stop]
        now = torch.tensor([plan.frame for plan in candidates])
        goal = torch.tensor([plan.steps[0].keyframe for plan in candidates])
        chunk = now[:, None] + torch.arange(steps)
        actions = torch.from_numpy(frames.actions)[chunk].mean(dim=1)
        codebook = engine.image_tokenizer.quantize.embedding.weight.detach()
        rows = torch.from_numpy(frames.rows(known))  # ascending, and they hold every frame of the pairs
        pairs = torch.searchsorted(rows, now), torch.searchsorted(rows, goal)
        self.tables.fit_tables(codes[rows], codebook, pairs, actions)

    def _decisions(
        self, frames: Frames, policy: ImaginationPolicy, env: gymnasium.Env
    ) -> tuple[Decisions, Decisions]:
        """Decisions of the episodes to fit and to test with; played on first use, kept beside the dataset."""
        seen = replace(self.config, horizon=1, hidden=1)  # what is played does not depend on how it is judged
        where = fingerprint_of(env)
        limits = f"{self.settings.max_steps} {self.settings.held_out}"  # which episodes the tables are of
        order = list(subtask_instructions_of(env))
        about = f"{limits} {seen} {policy.config} {order} {where}"
        weights = (self.source / checkpoint.WEIGHTS_FILE).read_bytes()
        key = hashlib.sha256(weights + about.encode()).hexdigest()[:12]
        folder, settings = frames.cache / f"confidence-{key}", self.settings
        fit_seeds = seeds_for("training", settings.fit_seed, settings.fit_episodes)
        test_seeds = seeds_for("validation", settings.test_seed, settings.test_episodes)
        fit, test = (
            judged(play_all(folder, env, policy, seeds, settings.max_steps), order, self.config.horizon)
            for seeds in (fit_seeds, test_seeds)
        )
        return foreseen(fit), foreseen(test)


def foreseen(decisions: Decisions) -> Decisions:
    """Only what could be foreseen: no score knows of a disturbance before it happens."""
    chosen = np.flatnonzero(decisions.foreseeable)
    return Decisions(
        signals=decisions.signals[chosen],
        achieved=decisions.achieved[chosen],
        foreseeable=decisions.foreseeable[chosen],
        seed=decisions.seed[chosen],
        kind=tuple(decisions.kind[i] for i in chosen),
    )
