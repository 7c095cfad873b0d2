"""Arms by which the value of imagination is measured: whose future the head is given, and which part of it.

All arms play the same seeds with the same weights. The oracle's subtask and keyframe are the expert's own
future in a copy of the simulator; the wrong ones are imagined in another episode of the task.
"""

from typing import Any, NamedTuple, Protocol

import gymnasium
import torch
from jaxtyping import UInt8
from torch import Tensor

from emu_agent.episodes.environment import expert_of, instruction_of, stateful
from emu_agent.errors import ConfigError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import Context, Imagination

LONGEST = 400
"""Control steps after which an expert that has not finished its subtask is believed not to."""
APART = 1
"""Between the seed of an episode and that of the other, whose imaginations are wrong here."""


class Source(Protocol):
    """Where imaginations come from."""

    def imagine(self, observation: Context, *, generator: torch.Generator) -> Imagination:
        """One candidate of one step."""
        ...


class Arm(NamedTuple):
    """What the head is given of an imagination."""

    source: str = "model"
    """`model`, `oracle` or `wrong`."""
    text: bool = True
    keyframe: bool = True


ARMS = {
    "never": Arm(),
    "always": Arm(),
    "adaptive": Arm(),
    "text": Arm(keyframe=False),
    "image": Arm(text=False),
    "wrong": Arm("wrong"),
    "oracle": Arm("oracle"),
}
"""By the name of the imagine mode; all but the first two imagine when there is a reason."""


class Oracle:
    """Subtask and keyframe from the expert's own future.

    Args:
        engine: Makes features of them.
        camera: Which is imagined.
        env: One environment whose state can be saved, with an expert, made by `gymnasium.make`.

    Raises:
        ConfigError: There is no copy of it, its state cannot be saved, or it has no expert.
    """

    def __init__(self, engine: ImaginationEngine, camera: str, env: gymnasium.Env) -> None:
        if env.spec is None or isinstance(env, gymnasium.vector.VectorEnv):
            raise ConfigError(f"{env} cannot be copied: this arm needs one environment of `gymnasium.make`")
        self._engine, self._camera = engine, camera
        self._original, self._copy = stateful(env), gymnasium.make(env.spec)
        self._simulation, self._expert = stateful(self._copy), expert_of(self._copy)

    def begin(self, seed: int) -> None:
        """An episode of this seed has begun."""
        self._copy.reset(seed=seed)
        self._expert.reset(seed)

    def imagine(self, observation: Context, *, generator: torch.Generator) -> Imagination:
        """What the expert does next from the present state."""
        _, info = self._simulation.set_state(self._original.get_state())
        text, seen = str(info["subtask"]), self._play_subtask(info)
        keyframe = self._engine.encode(seen)
        words = [instruction_of(self._copy, info)]
        features = self._engine.features_of(observation.codes, words, [text], keyframe)
        certain = torch.zeros(1, 1, 1, device=features.device)
        return Imagination((((text,),),), keyframe[:, None, None], certain, certain, features[:, None])

    def _play_subtask(self, info: dict[str, Any]) -> UInt8[Tensor, "1 height width 3"]:
        """What the camera sees when the expert has finished the present subtask, or the whole task."""
        before, played, over = info["subtask_index"], 0, False
        observation: dict[str, Any] = {}
        while not over and played < LONGEST:
            observation, _, _, _, info = self._simulation.step(self._expert.act(self._copy))
            over, played = info["subtask_index"] != before or info["is_success"], played + 1
        return torch.from_numpy(observation["pixels"][self._camera])[None]


class Wrong(Oracle):
    """What the model imagines in another episode of the task, at the beginning of the same subtask."""

    def begin(self, seed: int) -> None:
        """An episode of this seed has begun: the other is played, and looked at where subtasks begin."""
        observation, info = self._copy.reset(seed=seed + APART)
        self._expert.reset(seed + APART)
        self._scenes: list[Context] = []
        for _ in range(LONGEST):
            if info["subtask_index"] == len(self._scenes):
                pixels = torch.from_numpy(observation["pixels"][self._camera])[None]
                words = [instruction_of(self._copy, info)]
                self._scenes.append(self._engine.context(self._engine.encode(pixels), words))
            if info["is_success"]:
                break
            observation, _, _, _, info = self._simulation.step(self._expert.act(self._copy))

    def imagine(self, observation: Context, *, generator: torch.Generator) -> Imagination:
        """What the model imagines there."""
        _, info = self._original.set_state(self._original.get_state())
        scene = self._scenes[min(info["subtask_index"], len(self._scenes) - 1)]
        return self._engine.imagine(scene, generator=generator)


SOURCES = {"oracle": Oracle, "wrong": Wrong}
