"""One recorded demonstration, and its file while a collection is under way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from emu_agent.run_folder import replacing


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """An episode by an expert, one row per control step.

    `actions` are the expert's answers to the observed states: the labels for a policy. `executed` are what
    moved the robot, disturbances included: what a simulator model must see.
    """

    seed: int
    success: bool
    instruction: str
    steps: tuple[str, ...]
    """The step instruction of every frame."""
    images: dict[str, UInt8[np.ndarray, "time height width 3"]]
    proprio: Float32[np.ndarray, "time proprio_dim"]
    actions: Float32[np.ndarray, "time action_dim"]
    executed: Float32[np.ndarray, "time action_dim"]

    def __len__(self) -> int:
        return len(self.actions)

    def step_changes(self) -> list[tuple[int, str]]:
        """Frame and text wherever a new step instruction begins."""
        return [(t, text) for t, text in enumerate(self.steps) if t == 0 or self.steps[t - 1] != text]

    def save(self, path: Path) -> None:
        """Write the demonstration whole or not at all."""
        pictures: dict[str, Any] = {f"images.{name}": frames for name, frames in self.images.items()}
        with replacing(path) as part, part.open("wb") as stream:
            np.savez(
                stream,
                seed=self.seed,
                success=self.success,
                instruction=self.instruction,
                steps=np.array(self.steps),
                proprio=self.proprio,
                actions=self.actions,
                executed=self.executed,
                **pictures,
            )

    @classmethod
    def load(cls, path: Path) -> "Demonstration":
        """Read what `save` has written."""
        with np.load(path, allow_pickle=False) as arrays:
            names = [key.removeprefix("images.") for key in arrays.files if key.startswith("images.")]
            return cls(
                seed=int(arrays["seed"]),
                success=bool(arrays["success"]),
                instruction=str(arrays["instruction"]),
                steps=tuple(str(text) for text in arrays["steps"]),
                images={name: arrays[f"images.{name}"] for name in names},
                proprio=arrays["proprio"],
                actions=arrays["actions"],
                executed=arrays["executed"],
            )
