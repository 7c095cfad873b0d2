"""Reads the signals of the confidence score while a policy acts."""

import torch
from jaxtyping import Float
from torch import Tensor

from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import Context, Imagination
from emu_policies.confidence.confidence_score import ConfidenceScore
from emu_policies.head.monitor import SubtaskState


class ConfidenceMeter:
    """Follows one imagination at a time, for a batch of robots.

    Args:
        score: What weighs the signals.
        engine: Draws the further candidates.
    """

    signals: Float[Tensor, "batch signals"] | None
    """The latest signals, in the order of the score's config."""
    probability: Float[Tensor, " batch"] | None
    """That the imaginations will be achieved, in the latest opinion."""

    def __init__(self, score: ConfidenceScore, engine: ImaginationEngine) -> None:
        self._score, self._engine = score.eval(), engine
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Forget the past episode."""
        self._generator = torch.Generator(self._score.surprise.device).manual_seed(seed)
        self._gap: Tensor | None = None
        self._begin: dict[str, Tensor] = {}
        self.signals = self.probability = None

    @torch.no_grad()
    def begin(self, scene: Context, imagination: Imagination, *, compare: bool = True) -> None:
        """Take note of a new imagination.

        Args:
            scene: What it was imagined from.
            imagination: Itself.
            compare: Draw further candidates to see whether they agree; otherwise they count as usual.
        """
        keyframe = imagination.codes[:, 0, 0]
        self._begin = {
            "codes": scene.codes,
            "keyframe": keyframe,
            "rarity": self._score.rarity(scene.codes),
            "image_log_prob": imagination.image_log_prob[:, 0, 0],
            "text_log_prob": imagination.text_log_prob[:, 0, 0],
            "disagreement": self._disagreement(scene, imagination) if compare else self._usual(keyframe),
        }
        self._gap = torch.zeros(len(keyframe), device=keyframe.device)

    @torch.no_grad()
    def measure(
        self, scene: Context, subtask_probabilities: Float[Tensor, "batch states"], age: int
    ) -> Float[Tensor, " batch"]:
        """The probability that the imagination will be achieved, seen from the present frame."""
        begin, now = self._begin, scene.codes
        to_change = (begin["codes"] != begin["keyframe"]).flatten(1)
        reached = (now == begin["keyframe"]).flatten(1) & to_change
        drifted = (now != begin["codes"]).flatten(1) & ~to_change
        rarity = self._score.rarity(now)
        values: dict[str, Tensor] = {
            "image_log_prob": begin["image_log_prob"],
            "text_log_prob": begin["text_log_prob"],
            "disagreement": begin["disagreement"],
            "progress": reached.sum(dim=1) / to_change.sum(dim=1).clamp(min=1),
            "drift": drifted.sum(dim=1) / (~to_change).sum(dim=1).clamp(min=1),
            "rarity": rarity[:, 0],
            "rarest": rarity[:, 1],
            "rarity_change": rarity[:, 0] - begin["rarity"][:, 0],
            "inverse_dynamics": self._gap if self._gap is not None else torch.zeros_like(rarity[:, 0]),
            "done": subtask_probabilities[:, SubtaskState.DONE],
            "stale": subtask_probabilities[:, SubtaskState.STALE],
            "age": torch.full_like(rarity[:, 0], float(age)),
        }
        self.signals = torch.stack([values[name].float() for name in self._score.config.signals], dim=1)
        probability = self._score(self.signals).sigmoid()
        self.probability = probability
        return probability

    @torch.no_grad()
    def acted(self, scene: Context, actions: Float[Tensor, "batch time action_dim"]) -> None:
        """Compare the actions that are carried out next with those that the keyframe asks for."""
        wanted = self._score.wanted_action(scene.codes, self._begin["keyframe"])
        gap = (actions.mean(dim=1) - wanted) / self._score.action_std
        self._gap = gap.square().mean(dim=1).sqrt()

    def _usual(self, keyframe: Tensor) -> Tensor:
        """As much disagreement as there was on average in the episodes of the fit."""
        mean = self._score.normalizer.mean[self._score.config.signals.index("disagreement")]
        return mean.expand(len(keyframe))

    def _disagreement(self, scene: Context, imagination: Imagination) -> Tensor:
        """Share of the codes in which other keyframes of the same steps differ."""
        count, keyframe = self._score.config.candidates, imagination.codes[:, 0, 0]
        if not count:
            return torch.zeros(len(keyframe), device=keyframe.device)
        others = self._engine.imagine(
            scene, steps=1, candidates=count, generator=self._generator,
            texts=[candidates[0][0] for candidates in imagination.text],
        )  # fmt: skip
        return (others.codes[:, :, 0] != keyframe[:, None]).flatten(1).float().mean(dim=1)
