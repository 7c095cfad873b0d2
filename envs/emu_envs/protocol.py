"""What every environment of this package offers beyond Gymnasium's `reset` and `step`.

Observations are `pixels.<camera>` (uint8, height x width x 3; no `pixels` without cameras) and `agent_pos`
(float32). `info`, after
`reset` and after every `step`, holds:

    is_success      bool, the simulator's own predicate for the whole task in this state
    instruction     str, the task in words, as phrased in this episode
    subtask         str, the subtask instruction that fits this state
    subtask_index   int, how many subtasks came before it in this episode; one that occurs twice counts twice

Whoever needs more than Gymnasium offers asks `simulation_env`, which sees through wrappers.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from jaxtyping import Float64

from emu_envs.errors import NoSimulationError


@runtime_checkable
class SimulationEnv(Protocol):
    """A simulated manipulation task: `tests/emu_envs/test_protocol.py` holds every environment to it."""

    suite: str
    """Name of the suite, such as `robosuite`."""
    task: str
    """Name of the task within the suite, such as `Lift`."""
    embodiment: str
    """Robot, controller and gripper in a word, such as `panda`: decides about action bins and head."""
    instruction: str
    """The task in words, as phrased in this episode."""
    control_hz: int
    """Control steps per simulated second."""
    camera_names: tuple[str, ...]
    """Names of the cameras in `pixels`, the third-person camera first."""
    image_size: int
    """Height and width of the pictures [pixels]."""
    render_seconds: float
    """Seconds spent on rendering since the environment was made."""

    @property
    def subtask_instructions(self) -> Sequence[str]:
        """Words of all subtasks of this task, in their usual order; `info["subtask"]` is one of them."""
        ...

    @property
    def simulation(self) -> tuple[Any, Any]:
        """MuJoCo's model and data."""
        ...

    @property
    def mujoco_cameras(self) -> Sequence[str]:
        """Names of the cameras in MuJoCo's model, in the order of `camera_names`."""
        ...

    @property
    def object_joints(self) -> Mapping[str, str]:
        """Free joints in MuJoCo's model of the movable objects, by the objects' names; may be empty."""
        ...

    def privileged_state(self) -> dict[str, Any]:
        """End effector, objects and contacts, for experts and evaluation; never part of an observation.

        At least `hand_position` (3) [m], `hand_quaternion` (4; x, y, z, w), `fingers` and, for every object
        NAME, `NAME_position` (3) [m].
        """
        ...

    def predicates(self) -> dict[str, bool]:
        """Facts of this state, by name, from which subtasks are told apart."""
        ...

    def make_expert(self) -> "Expert":
        """The scripted expert for this task."""
        ...

    def get_state(self) -> Float64[np.ndarray, " size"]:
        """Everything that decides this episode's future: physics, controller, success and subtask counters.

        The array holds for this environment and for any other made with the same settings and reset with the
        same seed.
        """
        ...

    def set_state(self, state: Float64[np.ndarray, " size"]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Put back what `get_state` returned; returns observation and info as `reset` does.

        Raises:
            SettingError: `state` is not of this environment (its size differs).
        """
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What must agree between data, checkpoint and evaluation.

        Keys: embodiment, controller, camera_names, image_size, render_preset, control_hz, versions, gl. The
        task is no part of it: it belongs to the episode.
        """
        ...


@runtime_checkable
class Expert(Protocol):
    """A scripted policy that sees the simulation's state."""

    def reset(self, seed: int) -> None:
        """Forget the past episode."""
        ...

    def act(self, env: gymnasium.Env) -> Float64[np.ndarray, " action_dim"]:
        """Return the action for the present state of `env`, whatever led to it."""
        ...


def simulation_env(env: gymnasium.Env) -> SimulationEnv:
    """The `SimulationEnv` inside `env`, whatever wraps it.

    Raises:
        NoSimulationError: there is none; the message names what is missing.
    """
    inner = env.unwrapped
    if isinstance(inner, SimulationEnv):
        return inner
    wanted = [name for name in dir(SimulationEnv) if not name.startswith("_")]
    wanted += [name for name in SimulationEnv.__annotations__ if name not in wanted]
    missing = sorted(name for name in wanted if not hasattr(inner, name))
    raise NoSimulationError(
        f"{type(inner).__name__} is no simulated task of this package: it lacks {', '.join(missing)} "
        "(see emu_envs/protocol.py)"
    )
