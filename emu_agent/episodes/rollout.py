"""Act in an environment from reset to end, and keep account of where the time went.

Knows nothing of particular environments or policies: it meets them in Gymnasium's spaces and in two methods.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

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
    """What one control step looked like; the last record of an episode has no action."""

    index: int
    """Control steps taken before this picture."""
    pixels: Mapping[str, UInt8[np.ndarray, "height width 3"]]
    """Pictures by camera, as the policy saw them."""
    action: Float[np.ndarray, " action_dim"] | None
    """What the policy answered."""
    success: bool
    """Whether the environment counts the picture's state as solved."""
    imagination: Any = None
    """The policy's latest imagination, if it has any."""
    imagination_reason: str | None = None
    """Why that imagination was made, if the policy says so."""
    timing: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of what the policy did in this step, such as `imagine_ms`."""


@runtime_checkable
class Recorder(Protocol):
    """Watches an episode, for a video or a progress bar."""

    def record(self, step: StepRecord) -> None:
        """Take note of one control step."""
        ...


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


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """The record of one episode."""

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


def run_episode(
    env: gymnasium.Env,
    policy: Policy,
    seed: int,
    recorder: Recorder | None = None,
    max_steps: int | None = None,
) -> EpisodeResult:
    """Run one episode; the same seed gives the same episode whatever ran before.

    Args:
        env: A single environment with observations `pixels.<camera>` and `agent_pos`, and an instruction.
        policy: What acts.
        seed: Seeds both.
        recorder: Watches every step and the final picture; its time is not counted.
        max_steps: Stop after so many steps even if the environment goes on.
    """
    timings, watching = EpisodeTimings(), 0.0
    start = time.perf_counter()
    raw, info = env.reset(seed=seed)
    policy.reset(seed)
    instruction: str = env.unwrapped.instruction  # type: ignore[attr-defined]
    total, steps, ended = 0.0, 0, False
    while not ended and (max_steps is None or steps < max_steps):
        action, happened = _timed_action(policy, Observation.from_gym(raw, instruction), timings)
        if recorder is not None:
            watching += _watch(recorder, _step_record(steps, raw, action, info, policy, happened))
        raw, reward, terminated, truncated, info = _timed_step(env, action, timings)
        total, steps, ended = total + float(reward), steps + 1, terminated or truncated
    if recorder is not None:
        watching += _watch(recorder, _step_record(steps, raw, None, info, policy, {}))
    return EpisodeResult(
        seed=seed,
        success=bool(info.get("is_success", False)),
        steps=steps,
        wall_s=time.perf_counter() - start - watching,
        episode_return=total,
        timings=timings,
        interventions=dict(getattr(policy, "interventions", {})),
    )


def _timed_action(
    policy: Policy, observation: Observation, timings: EpisodeTimings
) -> tuple[Float[np.ndarray, " action_dim"], dict[str, float]]:
    start = time.perf_counter()
    action = policy.select_action(observation)[0].detach().cpu().numpy()
    timings.policy_s += time.perf_counter() - start
    happened = dict(getattr(policy, "last_timing", {}))
    for name, events in (("imagine_ms", timings.imagine_ms), ("chunk_ms", timings.chunk_ms)):
        if name in happened:
            events.append(float(happened[name]))
    return action, happened


def _timed_step(env: gymnasium.Env, action: np.ndarray, timings: EpisodeTimings) -> tuple[Any, ...]:
    rendered = getattr(env.unwrapped, "render_seconds", None)
    start = time.perf_counter()
    outcome = env.step(action)
    timings.env_s += time.perf_counter() - start
    if rendered is not None:
        timings.render_s = (timings.render_s or 0.0) + env.unwrapped.render_seconds - rendered  # type: ignore[attr-defined]
    return outcome


def _watch(recorder: Recorder, step: StepRecord) -> float:
    start = time.perf_counter()
    recorder.record(step)
    return time.perf_counter() - start


def _step_record(
    index: int,
    raw: Mapping[str, Any],
    action: np.ndarray | None,
    info: Mapping[str, Any],
    policy: Policy,
    happened: Mapping[str, float],
) -> StepRecord:
    return StepRecord(
        index=index,
        pixels=raw["pixels"],
        action=action,
        success=bool(info.get("is_success", False)),
        imagination=getattr(policy, "imagination", None),
        imagination_reason=getattr(policy, "imagination_reason", None),
        timing=happened,
    )
