"""Nudges to a simulated SO-101: what it does is not quite what it is told.

Demonstrations under nudges cover mistakes and how to mend them: what is recorded is the teleoperator's answer
to the state that results (the idea of DART, Laskey et al. 2017, arXiv 1703.09327).
"""

import numpy as np
from jaxtyping import Float


class Nudges:
    """Correlated noise on the joints' goals, and now and then a shove or jaws that do the opposite.

    Args:
        noise: standard deviation of what is added to a joint's noise in one action, scaled by a factor drawn
            per episode [degrees]; 0 leaves actions alone.
        mistake_rate: probability per action that a mistake begins.
        mistake_actions: shortest and longest mistake.
        last_action: no nudge after this action, so that an episode can end.
    """

    def __init__(
        self,
        noise: float,
        mistake_rate: float = 0.03,
        mistake_actions: tuple[int, int] = (3, 8),
        last_action: int = 100,
    ) -> None:
        self.noise, self.mistake_rate = noise, mistake_rate
        self.mistake_actions, self.last_action = mistake_actions, last_action
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin the nudges of the episode with this seed."""
        self._rng = np.random.default_rng([seed, 103])
        self._level = self.noise * self._rng.choice([0.0, 0.5, 1.0])
        self._drift = np.zeros(5)
        self._action = self._remaining = 0

    def apply(self, positions: Float[np.ndarray, "6"]) -> Float[np.ndarray, "6"]:
        """Return where the joints are really sent to [degrees, percent]."""
        self._action += 1
        if self._level == 0.0 or self._action > self.last_action:
            return positions
        self._drift = 0.7 * self._drift + self._rng.normal(0.0, self._level, 5)
        if self._remaining == 0 and self._rng.random() < self.mistake_rate:
            self._begin_mistake()
        nudged = positions.copy()
        nudged[:-1] += self._drift
        if self._remaining > 0:
            self._remaining -= 1
            nudged[:-1] += self._shove
            nudged[-1] = 45.0 - nudged[-1] if self._opposite else nudged[-1]
        return nudged

    def _begin_mistake(self) -> None:
        shortest, longest = self.mistake_actions
        self._remaining = int(self._rng.integers(shortest, longest, endpoint=True))
        self._shove = self._rng.uniform(-3.0, 3.0, 5) * self._level
        self._opposite = self._rng.random() < 0.3
