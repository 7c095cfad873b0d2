"""What an environment offers beyond Gymnasium's `reset` and `step`, whoever made it and whatever wraps it.

Ours keep `emu_envs/protocol.py`. Of others an instruction is needed, and a `make_expert` for demonstrations;
everything else has a default.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64
from omegaconf import DictConfig

from emu_agent.config import build
from emu_agent.errors import ConfigError

DEFAULT_HZ = 20
"""Control rate where an environment does not say how often it acts [Hz]."""


@runtime_checkable
class StatefulEnv(Protocol):
    """An environment whose whole state can be saved and put back."""

    def get_state(self) -> Float64[np.ndarray, " size"]:
        """Everything that decides the episode's future."""
        ...

    def set_state(self, state: Float64[np.ndarray, " size"]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Put back what `get_state` returned; returns observation and info."""
        ...

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As Gymnasium has it."""
        ...


def stateful(env: Any) -> StatefulEnv:
    """The simulation inside an environment, whose state can be saved and which knows no time limit.

    Raises:
        ConfigError: It cannot save its state.
    """
    if not isinstance(inner := env.unwrapped, StatefulEnv):
        raise ConfigError(
            f"{env} cannot save its state: branches need an environment with `get_state` and `set_state`"
        )
    return inner


def make_env(make: Mapping[str, Any], task: str) -> Any:
    """Build the environment of a config.

    Args:
        make: The config, with `_target_`; "{}" in its `id` stands for the task.
        task: Name of the task.
    """
    which = {"id": make["id"].format(task)} if "id" in make else {}
    return build(DictConfig(make), **which)


def instruction_of(env: Any, info: Mapping[str, Any]) -> str:
    """The task in words: of this episode, or of the environment.

    Raises:
        ConfigError: The environment has none.
    """
    for words in (info.get("instruction"), _offer(env, "instruction"), _offer(env, "task_description")):
        if isinstance(words, str):
            return words
    raise ConfigError(
        f"{env} has no instruction: put the task in words into info['instruction'], or give the environment "
        "an attribute `instruction`"
    )


def control_hz_of(env: Any, default: int = DEFAULT_HZ) -> int:
    """Control steps per second."""
    return int(_offer(env, "control_hz") or (_offer(env, "metadata") or {}).get("render_fps") or default)


def fingerprint_of(env: Any) -> dict[str, Any]:
    """What must agree between data, checkpoint and evaluation; nothing where the environment does not say."""
    fingerprint = _offer(env, "fingerprint")
    return {} if fingerprint is None else fingerprint()


def task_of(env: Any) -> str:
    """What tells its task from others: `emu/<suite>/<task>`, or the id under which it is registered."""
    suite, task, spec = _offer(env, "suite"), _offer(env, "task"), getattr(env, "spec", None)
    if suite is not None and task is not None:
        return f"emu/{suite}/{task}"
    return str(spec.id) if spec is not None else type(env.unwrapped).__name__


def render_seconds_of(env: Any) -> float | None:
    """Seconds spent on rendering since the environment was made; None where they are not counted."""
    return _offer(env, "render_seconds")


def subtask_instructions_of(env: Any) -> tuple[str, ...]:
    """Words of all subtasks in their usual order.

    Raises:
        ConfigError: The environment does not tell its subtasks.
    """
    if (words := _offer(env, "subtask_instructions")) is None:
        raise ConfigError(f"{env} does not tell its subtasks: it has no `subtask_instructions`")
    return tuple(words)


def expert_of(env: Any) -> Any:
    """The scripted expert for this task.

    Raises:
        ConfigError: There is none.
    """
    if (make := _offer(env, "make_expert")) is None:
        raise ConfigError(
            f"{env} has no scripted expert: demonstrations need a method `make_expert` whose result has "
            "`reset(seed)` and `act(env)`"
        )
    return make()


def _offer(env: Any, name: str) -> Any:
    """An attribute of the environment or of what it wraps; None where there is none."""
    if not hasattr(env, "get_wrapper_attr"):  # environments side by side
        return getattr(env, name, None)
    try:
        return env.get_wrapper_attr(name)
    except AttributeError:
        return None
