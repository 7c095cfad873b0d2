"""A policy made worse on purpose: for comparing policies of known order."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emu_agent.episodes.rollout import Policy
from emu_agent.errors import ConfigError
from emu_agent.observation import Observation


class NoisyPolicy:
    """Adds normal noise to every action of another policy; what else that offers is offered here as well.

    Args:
        policy: that is made worse.
        sigma: standard deviation of the noise, in units of the action.
        components: of the action that get noise; None is all.
    """

    def __init__(self, policy: Policy, sigma: float, components: Sequence[int] | None = None) -> None:
        if sigma < 0:
            raise ConfigError(f"sigma={sigma} must be 0 or more")
        self._policy, self._sigma, self._components = policy, sigma, components
        self.reset(0)

    def __getattr__(self, name: str) -> Any:
        """What the noise does not concern."""
        if name.startswith("_") or name == "continue_chunk":  # which would take its own noise for the past
            raise AttributeError(name)
        return getattr(self._policy, name)

    def reset(self, seed: int) -> None:
        """Start an episode; the same seed gives the same noise."""
        self._policy.reset(seed)
        self._generator = torch.Generator().manual_seed(seed)

    def select_action(self, observation: Observation) -> Float[Tensor, "batch action_dim"]:
        """The policy's action with noise, within [-1, 1]."""
        return self._noisy(self._policy.select_action(observation))

    def predict_action_chunk(self, observation: Observation) -> Float[Tensor, "batch chunk action_dim"]:
        """The policy's chunk with noise, within [-1, 1]; of a policy without chunks its one action."""
        make_chunk = getattr(self._policy, "predict_action_chunk", None)
        chunk = make_chunk(observation) if make_chunk else self._policy.select_action(observation)[:, None]
        return self._noisy(chunk)

    def _noisy(self, actions: Float[Tensor, "*batch action_dim"]) -> Float[Tensor, "*batch action_dim"]:
        noise = self._sigma * torch.randn(actions.shape, generator=self._generator).to(actions)
        if self._components is not None:
            kept = torch.zeros_like(noise)
            kept[..., list(self._components)] = noise[..., list(self._components)]
            noise = kept
        return (actions + noise).clamp(-1.0, 1.0)
