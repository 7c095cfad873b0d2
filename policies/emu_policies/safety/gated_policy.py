"""A policy whose actions pass the gate before an environment gets them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emu_agent.episodes.environment import control_hz_of
from emu_agent.episodes.rollout import Policy
from emu_agent.errors import ConfigError
from emu_agent.observation import Observation
from emu_policies.safety.gate import ActionGate
from emu_policies.safety.interventions import InterventionLog
from emu_policies.safety.limits import ActionLimits


class GatedPolicy:
    """Acts like the policy within, as far as the limits of an environment's actions allow.

    Each episode is another robot to the gate: an emergency stop lasts until the episode's end. Whatever else
    the policy offers (`imagination`, `last_timing`, `fingerprint`, ...) is offered here as well.
    """

    def __init__(self, policy: Policy, limits: ActionLimits) -> None:
        """Put a gate behind a policy whose actions are displacements; time passes in control steps."""
        if limits.hold is None:
            raise ConfigError(
                "limits need hold, the action that stands still: here actions are displacements"
            )
        self._policy = policy
        self._limits = limits
        self.reset(0)

    @classmethod
    def for_environment(cls, policy: Policy, env: Any) -> "GatedPolicy":
        """Take the bounds of a Gymnasium environment's box action space; zeros stand still.

        Raises:
            ConfigError: If the environment gives no bounds.
        """
        space = env.action_space
        low, high = getattr(space, "low", None), getattr(space, "high", None)
        if low is None or high is None or not np.isfinite([low, high]).all() or np.ndim(low) != 1:
            raise ConfigError(
                f"the action gate needs bounds, and the environment's action space is {space}: give it a "
                f"one-dimensional Box with finite low and high, or switch the gate off with gate=null"
            )
        # Actions are float32; a bound that is not must not be passed by rounding.
        low, high = _rounded(low, np.inf), _rounded(high, -np.inf)
        control_hz = float(control_hz_of(env))
        hold = np.clip(0.0, low, high).tolist()
        return cls(policy, ActionLimits.from_bounds(low.tolist(), high.tolist(), control_hz, hold=hold))

    def __getattr__(self, name: str) -> Any:
        """What the gate does not concern; chunks would pass it by."""
        if name.startswith("_") or name in ("predict_action_chunk", "continue_chunk"):
            raise AttributeError(name)
        return getattr(self._policy, name)

    @property
    def interventions(self) -> Mapping[str, int]:
        """How often the gate intervened in this episode, by kind."""
        return self.gate.log.counts

    def reset(self, seed: int) -> None:
        """Start an episode."""
        self._policy.reset(seed)
        self.gate = ActionGate(self._limits, clock=None, log=InterventionLog())
        self.gate.start(self._limits.array("hold"))

    def select_action(self, observation: Observation) -> Float[Tensor, "batch action_dim"]:
        """The policy's action, if it keeps the limits; the nearest that does otherwise."""
        wanted = self._policy.select_action(observation)
        if wanted.shape != (1, self._limits.action_dim):
            raise ConfigError(
                f"the policy gives actions of shape {tuple(wanted.shape)}; "
                f"the environment takes {(1, self._limits.action_dim)}"
            )
        sent = self.gate(wanted[0].detach().cpu().numpy())
        return torch.from_numpy(sent)[None].to(wanted)


def _rounded(bound: Any, towards: float) -> Float[np.ndarray, " action_dim"]:
    """The nearest float32 values that are not beyond the bound, which lies on the other side of `towards`."""
    exact, single = np.asarray(bound, np.float64), np.asarray(bound, np.float32)
    beyond = np.sign(single - exact) == -np.sign(towards)
    return np.where(beyond, np.nextafter(single, np.float32(towards)), single).astype(np.float64)
