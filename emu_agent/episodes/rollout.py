"""Act in an environment from reset to end, and keep account of where the time went.

Knows nothing of particular environments or policies: it meets them in Gymnasium's spaces and in two methods.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import gymnasium
import gymnasium.vector
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from emu_agent.episodes.environment import instruction_of, render_seconds_of, task_of
from emu_agent.errors import EmuAgentError
from emu_agent.observation import Observation


@runtime_checkable
class Policy(Protocol):
    """Maps observations to actions.

    A policy may also offer `imagination` (the latest one or None), `imagination_reason` (why it was made),
    `last_timing` (milliseconds of what happened in the latest call), `fingerprint` (of the environment it
    was made for, or None) and `interventions` (of an action gate in this episode, by kind).
    """

    def reset(self, seed: int) -> None:
        """Forget the past episode and seed all randomness of the next."""
        ...

    def select_action(self, observation: Observation) -> Float[Tensor, "batch action_dim"]:
        """Return the next action of every environment in the batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What one control step looked like; the last record of an episode has no action.

    In environments side by side, info, action, reward and `over` have a row for each.
    """

    index: int
    """Control steps taken before this observation."""
    observation: Mapping[str, Any]
    """What the environment gave, as the policy saw it."""
    info: Mapping[str, Any]
    """What the environment said about the state that was observed."""
    over: Any = False
    """Whether the episode had ended before: only possible side by side, and in the last record."""
    action: Float[np.ndarray, "*batch action_dim"] | None = None
    """What the policy answered."""
    reward: Any = 0.0
    """What the environment gave for the action."""
    imagination: Any = None
    """The policy's latest imagination, if it has any."""
    imagination_reason: str | None = None
    """Why that imagination was made, if the policy says so."""
    timing: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of what the policy did in this step, such as `imagine_ms`."""
    policy_s: float = 0.0
    """The policy's time [s]."""
    env_s: float = 0.0
    """The environment's time, rendering included [s]."""
    render_s: float | None = None
    """Rendering within it [s]; None where the environment does not count it."""

    @property
    def pixels(self) -> Mapping[str, UInt8[np.ndarray, "*batch height width 3"]]:
        """Images by camera."""
        return self.observation.get("pixels", {})

    @property
    def success(self) -> bool:
        """Whether the environment counts the observed state as solved."""
        return bool(self.info.get("is_success", False))


type Recorder = Callable[[StepRecord], None]
"""Watches an episode step by step, for a video or a progress bar."""


@dataclass
class EpisodeTimings:
    """Where an episode's time went."""

    imagine_ms: list[float] = field(default_factory=list)
    """Every imagination."""
    chunk_ms: list[float] = field(default_factory=list)
    """Every action chunk."""
    policy_s: float = 0.0
    """All calls of the policy."""
    env_s: float = 0.0
    """All environment steps, rendering included."""
    render_s: float | None = None
    """Rendering within the steps; None where the environment does not count it."""

    def add(self, step: StepRecord) -> None:
        """Count one step."""
        self.policy_s += step.policy_s
        self.env_s += step.env_s
        if step.render_s is not None:
            self.render_s = (self.render_s or 0.0) + step.render_s
        for name, events in (("imagine_ms", self.imagine_ms), ("chunk_ms", self.chunk_ms)):
            if name in step.timing:
                events.append(float(step.timing[name]))


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """The record of one episode."""

    task: str
    """What tells the task from others, such as `emu/robosuite/Lift`."""
    seed: int
    """What the environment and the policy were seeded with."""
    success: bool
    """Whether the last state was solved."""
    steps: int
    """Control steps taken."""
    wall_s: float
    """Seconds from reset to end, video work left out."""
    episode_return: float
    """Sum of rewards."""
    timings: EpisodeTimings
    """Where the time went."""
    interventions: Mapping[str, int] = field(default_factory=dict)
    """How often an action gate intervened, by kind."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)


def play(
    env: Any,
    policy: Policy,
    seed: int,
    max_steps: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[StepRecord]:
    """Observe and act until the episode ends; the one loop in which policies and experts meet environments.

    The same seed gives the same episode whatever ran before. Each record comes after its action was taken;
    what the policy offers still belongs to that action. The consumer's time counts nowhere.

    Args:
        env: One environment, or several side by side that do not reset themselves; with observations
            `pixels.<camera>` and `agent_pos`, and an instruction.
        policy: What acts.
        seed: Seeds both.
        max_steps: Stop after so many steps even if the environment goes on.
        options: For the environment's `reset`.
    """
    observation, info = env.reset(seed=seed, options=options)
    if bind := getattr(policy, "bind", None):  # the head of its embodiment, the bounds of its actions
        bind(env)
    policy.reset(seed)
    single = not isinstance(env, gymnasium.vector.VectorEnv)
    index, over = 0, False
    while not np.all(over) and index != max_steps:
        rendered, start = render_seconds_of(env), time.perf_counter()
        seen = Observation.from_gym(observation, instruction_of(env, info))
        actions = policy.select_action(seen).detach().cpu().numpy()
        if not np.isfinite(actions).all():
            raise EmuAgentError(
                f"the policy's action in step {index} must be finite numbers, but is {actions.tolist()}"
            )
        action, chosen = actions[0] if single else actions, time.perf_counter()
        following, reward, terminated, truncated, outcome = env.step(action)
        acted = time.perf_counter()
        yield StepRecord(
            index=index,
            observation=observation,
            info=info,
            over=over,
            action=action,
            reward=reward,
            imagination=getattr(policy, "imagination", None),
            imagination_reason=getattr(policy, "imagination_reason", None),
            timing=dict(getattr(policy, "last_timing", {})),
            policy_s=chosen - start,
            env_s=acted - chosen,
            render_s=None if rendered is None else (render_seconds_of(env) or 0.0) - rendered,
        )
        observation, info, index = following, outcome, index + 1
        over = np.logical_or(over, np.logical_or(terminated, truncated))
    yield StepRecord(
        index=index,
        observation=observation,
        info=info,
        over=over,
        imagination=getattr(policy, "imagination", None),
        imagination_reason=getattr(policy, "imagination_reason", None),
    )


def run_episode(
    env: gymnasium.Env,
    policy: Policy,
    seed: int,
    recorder: Recorder | None = None,
    max_steps: int | None = None,
) -> EpisodeResult:
    """Run one episode and sum it up; arguments as of `play`.

    Args:
        env: A single environment.
        policy: What acts.
        seed: Seeds both.
        recorder: Watches every step and the final image; its time is not counted.
        max_steps: Stop after so many steps even if the environment goes on.
    """
    timings, total, watching = EpisodeTimings(), 0.0, 0.0
    start, step = time.perf_counter(), None
    for step in play(env, policy, seed, max_steps):
        shown = time.perf_counter()
        if recorder is not None:
            recorder(step)
        watching += time.perf_counter() - shown
        timings.add(step)
        total += float(step.reward)
    assert step is not None
    return EpisodeResult(
        task=task_of(env),
        seed=seed,
        success=step.success,
        steps=step.index,
        wall_s=time.perf_counter() - start - watching,
        episode_return=total,
        timings=timings,
        interventions=dict(getattr(policy, "interventions", {})),
    )
