"""The baseline that anything must beat: nothing changes."""

import numpy as np
from jaxtyping import Float32

from emu_agent.evaluation.adapters.protocol import Abilities, Future, Start


class Persistence:
    """Repeats the frame, whatever is done."""

    name = "persistence"
    abilities = Abilities(imagine=True, simulate=True)

    def encode(self, start: Start) -> Start:
        """The present as it is."""
        return start

    def predict(
        self, context: Start, steps: int, actions: Float32[np.ndarray, "batch time action_dim"] | None = None
    ) -> Future:
        """The present again, `steps` times."""
        return Future(pictures=np.repeat(context.pictures[:, None], steps, axis=1))
