"""Counterfactual branches: from one saved state of an episode several action chunks are played.

Only a simulator can give them: what really follows when something else is done in the very same state. Each
branch is a short episode of its own, whose first frame shows the saved state; a state that does not replay is
left out and named.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float32, Float64

from emu_agent.data.columns import BRANCH_CHUNK, BRANCH_STATE, BRANCH_TIMESTEP, OWN
from emu_agent.data.demonstration import EXTRA, Demonstration
from emu_agent.episodes.environment import StatefulEnv, expert_of, stateful
from emu_agent.episodes.recording import DisturbedExpert, RecordWork, demonstrate
from emu_agent.observation import Observation

KINDS = (OWN, "other", "negated", "hold", "random")
"""Chunks by name, in the order in which they are played; further random ones are `random-2`, ..."""
TURN = 0.2
"""Largest rotation in a random chunk, in action units: experts turn little."""

type Chunk = Float32[np.ndarray, "chunk action_dim"]
type Branch = tuple[int, str, Demonstration]
"""Timestep of the saved state, name of the chunk, and what followed."""


class StateKeeper(DisturbedExpert):
    """A disturbed expert that saves the simulator's state before each of its actions."""

    def reset(self, seed: int) -> None:
        """Start an episode."""
        super().reset(seed)
        self.states: list[Float64[np.ndarray, " size"]] = []

    def select_action(self, observation: Observation) -> Any:
        """What is executed."""
        self.states.append(stateful(self._env).get_state())
        return super().select_action(observation)


@dataclass
class BranchWork(RecordWork):
    """Work of `executors`: plays an episode, and branches from some of its states.

    What it returns for a seed is one demonstration: all branches one behind the other, with `extra` telling
    them apart.
    """

    branches: int = 8
    """Chunks that are played from each state."""
    states: int = 5
    """Saved states of an episode; fewer of a short one."""
    chunk: int = 8
    """Length of a chunk [control steps]."""

    def record(self, env: gymnasium.Env, perturbation: Any, seed: int, **settings: Any) -> Demonstration:
        """Play the episode of a seed, and its branches."""
        expert, simulation = StateKeeper(env, expert_of(env), perturbation), stateful(env)
        episode = demonstrate(env, expert, seed, self.max_steps, **settings)
        rng = np.random.default_rng([seed, 11])
        played, left_out = list[Branch](), list[int]()
        for start in _timesteps(len(episode) - self.chunk, self.states, rng):
            chunks = self._chunks(episode.executed, start, rng)
            own, states = play_chunk(simulation, expert.states[start], chunks.pop(OWN), episode)
            if not _replays(own, states, episode, expert.states, start):
                left_out.append(start)
                continue
            played.append((start, OWN, own))
            for kind, chunk in chunks.items():
                played.append((start, kind, play_chunk(simulation, expert.states[start], chunk, episode)[0]))
        return _joined(episode, played, left_out)

    def _chunks(
        self, executed: Float32[np.ndarray, "time action_dim"], start: int, rng: np.random.Generator
    ) -> dict[str, Chunk]:
        """The chunks that are played from the state before action `start`, the episode's own first."""
        own, held = executed[start : start + self.chunk], float(executed[max(0, start - 1), -1])
        starts = np.arange(max(1, len(executed) - self.chunk))
        apart = starts[np.abs(starts - start) >= self.chunk]
        other = int(rng.choice(apart if len(apart) else starts))
        hold = np.zeros_like(own)
        hold[:, -1] = held
        chunks = {
            OWN: own,
            "other": executed[other : other + self.chunk],
            "negated": np.concatenate([-own[:, :-1], own[:, -1:]], axis=1),
            "hold": hold,
        }
        for number in range(1, self.branches - len(chunks) + 1):
            chunks["random" if number == 1 else f"random-{number}"] = random_chunk(own.shape, held, rng)
        return dict(list(chunks.items())[: self.branches])


def random_chunk(shape: tuple[int, ...], held: float, rng: np.random.Generator) -> Chunk:
    """A smooth displacement to anywhere; the gripper stays as it is, or is opened or closed.

    Args:
        shape: of the chunk: a displacement (x, y, z), perhaps a rotation, and last the gripper.
        held: the gripper's present command.
        rng: source of all randomness.
    """
    length, size = shape
    largest = np.where(np.arange(size - 1) < 3, 1.0, TURN)
    knots = rng.uniform(-largest, largest, (3, size - 1))
    at = np.linspace(0, len(knots) - 1, length)
    moving = [np.interp(at, np.arange(len(knots)), column) for column in knots.T]
    gripper = rng.choice([held, held, -1.0, 1.0])
    return np.stack([*moving, np.full(length, gripper)], axis=1).astype(np.float32)


def play_chunk(
    env: StatefulEnv, state: Float64[np.ndarray, " size"], chunk: Chunk, episode: Demonstration
) -> tuple[Demonstration, list[np.ndarray]]:
    """Play a chunk from a saved state; returns a short episode, and the states behind each of its actions.

    The last frame is what the last action led to. No action follows it: its row repeats the last one.

    Args:
        env: the simulation.
        state: where to begin.
        chunk: what to do.
        episode: to which the state belongs.
    """
    observation, info = env.set_state(state)
    seen, states, rewards = [(observation, info)], [], []
    for action in chunk:
        observation, reward, _, _, info = env.step(action)
        seen.append((observation, info))
        states.append(env.get_state())
        rewards.append(reward)
    solved = [bool(info.get("is_success", False)) for _, info in seen]
    actions = np.concatenate([chunk, chunk[-1:]])
    made = replace(
        episode,
        success=solved[-1],
        steps=tuple(str(info.get("subtask", "")) for _, info in seen),
        subtask_index=np.array([info.get("subtask_index", 0) for _, info in seen], np.int64),
        images={name: np.stack([raw["pixels"][name] for raw, _ in seen]) for name in episode.images},
        proprio=np.stack([raw["agent_pos"] for raw, _ in seen]).astype(np.float32),
        actions=actions, executed=actions,
        rewards=np.array([*rewards, 0.0], np.float32),
        successes=np.array([*solved[1:], solved[-1]], bool),
    )  # fmt: skip
    return made, states


def branch_episodes(files: Iterable[Path]) -> Iterator[Demonstration]:
    """The branches that `BranchWork` has left in files, as the short episodes of a dataset."""
    number = count()
    for path in files:
        whole = Demonstration.load(path)
        timesteps, kinds = whole.extra["timesteps"], whole.extra["chunks"]
        length, state = len(whole) // max(1, len(kinds)), -1
        for i, (timestep, kind) in enumerate(zip(timesteps, kinds, strict=True)):
            if kind == OWN:
                state = next(number)
            columns = {BRANCH_STATE: state, BRANCH_TIMESTEP: timestep, BRANCH_CHUNK: kind}
            extra = {name: np.full(length, value) for name, value in columns.items()}
            part = whole.part(i * length, (i + 1) * length)
            yield replace(part, success=bool(part.successes[-1]), extra=extra)


def counted(files: Iterable[Path]) -> dict[str, Any]:
    """What became of the saved states, for the manifest: how many by task, and those that do not replay."""
    states, left_out = Counter[str](), dict[str, list[list[int]]]()
    for path in files:
        with np.load(path, allow_pickle=False) as stored:
            task, seed = str(stored["task"]), int(stored["seed"])
            states[task] += int((stored[EXTRA + "chunks"] == OWN).sum())
            left_out.setdefault(task, []).extend([seed, int(t)] for t in stored[EXTRA + "left_out"])
    return {"states": dict(states), "left_out": {task: some for task, some in left_out.items() if some}}


def _timesteps(last: int, count: int, rng: np.random.Generator) -> list[int]:
    """So many timesteps below `last`, drawn evenly along the episode."""
    if last <= count:
        return list(range(max(0, last)))
    edges = np.linspace(0, last, count + 1).astype(int)
    return [int(rng.integers(low, high)) for low, high in pairwise(edges)]


def _replays(
    own: Demonstration,
    states: Sequence[np.ndarray],
    episode: Demonstration,
    kept: Sequence[np.ndarray],
    start: int,
) -> bool:
    """Whether the episode's own chunk led to the same images, bodies and states as in the episode."""
    there = episode.part(start, start + len(own))
    images = all(np.array_equal(own.images[name], there.images[name]) for name in own.images)
    bodies = np.array_equal(own.proprio, there.proprio)
    return images and bodies and all(map(np.array_equal, states, kept[start + 1 :]))


def _joined(episode: Demonstration, played: Sequence[Branch], left_out: Sequence[int]) -> Demonstration:
    """All branches of an episode in one file; a single frame of it where there is none."""
    extra = {
        "timesteps": np.array([start for start, _, _ in played], np.int64),
        "chunks": np.array([kind for _, kind, _ in played], str),
        "left_out": np.array(left_out, np.int64),
    }
    parts = [part for _, _, part in played] or [episode.part(0, 1)]
    arrays = ("subtask_index", "proprio", "actions", "executed", "rewards", "successes")
    joined: dict[str, Any] = {name: np.concatenate([getattr(one, name) for one in parts]) for name in arrays}
    images = {name: np.concatenate([one.images[name] for one in parts]) for name in episode.images}
    steps = tuple(text for one in parts for text in one.steps)
    return replace(episode, images=images, steps=steps, extra=extra, **joined)
