"""An imagination engine without a world model: enough to test a policy."""

from typing import Any

import torch

from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import Context, Imagination
from emu_agent.observation import Observation
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.config import preset


class FakeEngine(ImaginationEngine):
    """Features are a function of the pixels' mean; what is imagined is noise."""

    image_tokenizer = None  # type: ignore[assignment]

    subtasks = ()

    def __init__(self, log_prob: float = -1.0) -> None:
        self.log_prob = log_prob
        self.num_imaginations = 0

    def observe(self, observation: Observation, camera: str) -> Context:
        brightness = observation.images[camera].float().mean(dim=(1, 2, 3)) / 255.0
        features = (brightness[:, None, None] * torch.linspace(-1, 1, 16)).expand(-1, 4, -1)
        cache = KVCache.empty(preset("debug"), len(brightness), 1, features)
        return Context(cache, torch.zeros(len(brightness), 2, 2, dtype=torch.int64), features)

    def imagine(  # type: ignore[override]
        self,
        observation: Context,
        *,
        steps: int = 1,
        candidates: int = 1,
        generator: torch.Generator,
        **_: Any,
    ) -> Imagination:
        self.num_imaginations += 1
        batch = len(observation.features)
        log_prob = torch.full((batch, candidates, steps), self.log_prob)
        return Imagination(
            text=((("lift",) * steps,) * candidates,) * batch,
            codes=torch.zeros(batch, candidates, steps, 2, 2, dtype=torch.int64),
            text_log_prob=log_prob,
            image_log_prob=log_prob,
            features=torch.randn(batch, candidates, 5, 16, generator=generator),
        )
