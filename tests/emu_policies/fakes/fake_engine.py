"""An imagination engine without a world model: enough to test a policy."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emu_agent.observation import Observation


@dataclass(frozen=True)
class FakeScene:
    features: Tensor


@dataclass(frozen=True)
class FakeImagination:
    features: Tensor
    image_log_prob: Tensor


class FakeEngine:
    """Features are a function of the pixels' mean; what is imagined is noise."""

    image_tokenizer = None

    def __init__(self, log_prob: float = -1.0) -> None:
        self.log_prob = log_prob
        self.num_imaginations = 0

    def observe(self, observation: Observation, camera: str) -> FakeScene:
        brightness = observation.images[camera].float().mean(dim=(1, 2, 3)) / 255.0
        return FakeScene((brightness[:, None, None] * torch.linspace(-1, 1, 16)).expand(-1, 4, -1))

    def imagine(
        self,
        observation: FakeScene,
        *,
        steps: int,
        candidates: int,
        generator: torch.Generator,
        texts: Sequence[str] | None = None,
    ) -> FakeImagination:
        self.num_imaginations += 1
        batch = len(observation.features)
        features = torch.randn(batch, candidates, 5, 16, generator=generator)
        return FakeImagination(features, torch.full((batch, candidates, steps), self.log_prob))
