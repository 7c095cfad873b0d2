"""Disturbances added to an expert's actions, so that demonstrations cover mistakes and how to mend them.

What is executed is disturbed, what is recorded as the label is the expert's answer to the state that results
(the idea of DART, Laskey et al. 2017, arXiv 1703.09327).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


class Perturbation:
    """Correlated noise on the displacement, and now and then a shove or a gripper that does the opposite.

    Actions begin with a displacement (x, y, z) and end with the gripper; there may be a rotation between.

    Args:
        noise: standard deviation of the displacement noise, in action units, scaled by the episode's level.
        turn: the same of the noise on the rotation, where an action has one.
        levels: one of them is drawn per episode.
        mistake_rate: probability per step that a mistake begins.
        mistake_steps: shortest and longest mistake [control steps].
        last_step: no disturbance after this step, so that an episode can end.
    """

    def __init__(
        self,
        noise: float = 0.3,
        turn: float = 0.0,
        levels: Sequence[float] = (0.0, 0.5, 1.0),
        mistake_rate: float = 0.04,
        mistake_steps: tuple[int, int] = (2, 6),
        last_step: int = 50,
    ) -> None:
        self.noise, self.turn, self.levels = noise, turn, list(levels)
        self.mistake_rate = mistake_rate
        self.mistake_steps, self.last_step = mistake_steps, last_step
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin the disturbances of the episode with this seed."""
        self._rng = np.random.default_rng([seed, 7])
        self._level = self._rng.choice(self.levels)
        self._drift = np.zeros(6)
        self._step = self._remaining = 0

    def apply(self, action: Float[np.ndarray, " action_dim"]) -> Float[np.ndarray, " action_dim"]:
        """Return the disturbed action of the next step."""
        self._step += 1
        if self._level == 0.0 or self._step > self.last_step:
            return action
        self._drift = 0.7 * self._drift
        self._drift[:3] += self._rng.normal(0.0, self.noise * self._level, 3)
        if self.turn:
            self._drift[3:] += self._rng.normal(0.0, self.turn * self._level, 3)
        disturbed = action.copy()
        moving = len(action) - 1  # displacement, perhaps rotation, and last the gripper
        disturbed[:moving] += self._drift[:moving]
        if self._remaining == 0 and self._rng.random() < self.mistake_rate * self._level:
            shortest, longest = self.mistake_steps
            self._remaining = int(self._rng.integers(shortest, longest, endpoint=True))
            self._shove = self._rng.uniform(-1.0, 1.0, 3)
            self._flip = self._rng.random() < 0.5
        if self._remaining > 0:
            self._remaining -= 1
            disturbed[:3] += self._shove
            disturbed[-1] *= -1.0 if self._flip else 1.0
        return np.clip(disturbed, -1.0, 1.0)
