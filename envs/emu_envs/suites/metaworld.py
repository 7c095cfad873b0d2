"""All tasks of Meta-World v3: a Sawyer moved by end-effector displacements at 80 Hz."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float64

from emu_envs.opengl import mujoco
from emu_envs.protocol import Expert, simulation_env
from emu_envs.suites.base import SuiteEnv
from emu_envs.suites.metaworld_facts import Facts
from emu_envs.suites.metaworld_models import Drawing, physics_model

FRAME = 18
"""Size of Meta-World's own observation of one control step: gripper (4), objects (14)."""

WIDEST = 0.1
"""Distance between the fingers that counts as fully open [m], as in Meta-World."""


class MetaworldEnv(SuiteEnv):
    """A task of Meta-World v3.

    `agent_pos` is the end effector's position [m] and the gripper's opening (0 to 1); an action is the end
    effector's displacement (x, y, z; 1 is 1 cm) and the gripper (-1 open, 1 closed), as in LeRobot. An
    episode ends with the first control step in which Meta-World's own predicate of success holds. Arguments
    and errors are those of `SuiteEnv`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 - as Gymnasium has it
    suite = "metaworld"
    embodiment = "sawyer"
    controller = "mocap"
    control_hz = 80
    success_hold = 1
    packages = ("mujoco", "metaworld")
    cameras: ClassVar[Mapping[str, str]] = {
        "agentview": "corner2",
        "gripper": "gripperPOV",
        "topview": "topview",
    }

    def __init__(self, task: str, camera_names: Sequence[str] = ("agentview",), **settings: Any) -> None:
        super().__init__(task, camera_names, **settings)

    def _build(self) -> None:
        settings = self.row.settings
        self._inner = _make_metaworld(self.task)
        model = self._inner.model
        self._fixed = {name: getattr(model, name).copy() for name in ("body_pos", "site_pos")}
        self._facts = Facts(self._inner, settings.get("close", 0.1))
        self._drawing: Drawing | None = None
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._restart(0)

    @property
    def simulation(self) -> tuple[Any, Any]:
        """MuJoCo's model and data."""
        return self._inner.model, self._inner.data

    @property
    def object_joints(self) -> Mapping[str, str]:
        """Free joints of the objects that can be moved, by the objects' names."""
        model = self._inner.model
        free = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE).tolist()
        return {model.body(model.jnt_bodyid[joint]).name: model.joint(joint).name for joint in free}

    def privileged_state(self) -> dict[str, Any]:
        """End effector, objects and goal, for experts and evaluation; never part of an observation.

        `object_position` is the point of the main object that Meta-World observes, `goal_position` its
        target [m].
        """
        inner = self._inner
        state = {
            "hand_position": self._body()[:3],
            "hand_quaternion": np.roll(inner.data.body("hand").xquat, -1),
            "fingers": self._body()[3:],
            "object_position": inner._get_pos_objects()[:3].copy(),
            "goal_position": np.array(inner._target_pos),
        }
        bodies = {f"{name}_position": inner.data.body(name).xpos.copy() for name in self.object_joints}
        return state | bodies

    def predicates(self) -> dict[str, bool]:
        """Facts of this state, by name, from which subtasks are told apart."""
        return dict(self._facts.values)

    def make_expert(self) -> Expert:
        """Return Meta-World's scripted policy for this task."""
        return MetaworldExpert(self.task)

    def metaworld_observation(self) -> Float64[np.ndarray, "39"]:
        """Meta-World's observation of this state, with objects and goal: what its scripted policies see."""
        frame = self._inner._get_curr_obs_combined_no_goal()
        return np.hstack([frame, self._inner._prev_obs, self._inner._get_pos_goal()])

    def set_state(self, state: Float64[np.ndarray, " size"]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Put back what `get_state` returned; see `SimulationEnv`."""
        if state.shape == self.get_state().shape and (seed := int(state[-1])) != self._seed:
            self._restart(seed)  # goals and what rewards compare with are drawn from it
        return super().set_state(state)

    def close(self) -> None:
        """Free the renderer and the simulation."""
        super().close()
        self._inner.close()

    def _restart(self, seed: int) -> None:
        inner = self._inner
        for name, values in self._fixed.items():
            getattr(inner.model, name)[:] = values
        self._seed = seed % 2**53  # a state holds it as a float
        inner.seed(self._seed)
        inner.reset()
        mujoco.mj_forward(*self.simulation)  # bodies that were placed just now are not yet there
        inner._prev_obs = inner._get_curr_obs_combined_no_goal()
        _, info = inner.evaluate_state(self.metaworld_observation(), np.zeros(4))
        self._success = bool(info["success"])
        self._facts.restart()

    def _advance(self, action: Float64[np.ndarray, " action_dim"]) -> float:
        self._inner.curr_path_length = 0  # the length of an episode is Gymnasium's business here
        _, reward, _, _, info = self._inner.step(action)
        self._success = bool(info["success"])
        self._facts.update()
        return float(reward)

    def _body(self) -> np.ndarray:
        hand, right, left = (self._inner.data.body(name).xpos for name in ("hand", "rightclaw", "leftclaw"))
        opening = min(float(np.linalg.norm(right - left)) / WIDEST, 1.0)
        return np.array([*hand, opening])

    def _solved(self) -> bool:
        return self._success

    def _drawn(self) -> tuple[Any, Any]:
        if self._drawing is None:
            self._drawing = Drawing(self._inner.fullpath, self.preset.mesh_keep)
        return self._drawing.follow(*self.simulation)

    def _controller_state(self) -> Float64[np.ndarray, " size"]:
        sites = self._inner.model.site_pos.ravel()
        own = [self._inner._prev_obs, self._facts.state(), [self._success, self._seed]]
        return np.concatenate([sites, *own]).astype(np.float64)

    def _set_controller_state(self, state: Float64[np.ndarray, " size"]) -> None:
        sites = self._inner.model.site_pos
        positions, frame, facts, success, _ = np.split(state, [sites.size, sites.size + FRAME, -2, -1])
        sites[:] = positions.reshape(sites.shape)
        mujoco.mj_fwdPosition(*self.simulation)
        self._inner._prev_obs = frame.copy()
        self._facts.set_state(facts)
        self._success = bool(success[0])


class MetaworldExpert:
    """Meta-World's scripted policy of one task; it has no memory.

    Args:
        task: Name within the suite.
    """

    def __init__(self, task: str) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        self._policy = ENV_POLICY_MAP[task]()

    def reset(self, seed: int) -> None:
        """Do nothing: the policy depends on the present state only."""

    def act(self, env: gymnasium.Env) -> Float64[np.ndarray, " action_dim"]:
        """Return the action for the present state."""
        inner = simulation_env(env)
        assert isinstance(inner, MetaworldEnv)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that displacements are clipped, in nearly every control step
            action = self._policy.get_action(inner.metaworld_observation())
        return np.clip(np.asarray(action, np.float64), -1.0, 1.0)


class _OurModel:
    """Has Meta-World's environments load their model as `physics_model` does."""

    fullpath: str

    def _initialize_simulation(self) -> tuple[Any, Any]:
        model = physics_model(self.fullpath)
        return model, mujoco.MjData(model)


def _make_metaworld(task: str) -> Any:
    """Build Meta-World's environment, seeded by `seed` and with a goal that its policies can see."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    base = ALL_V3_ENVIRONMENTS[task]
    inner = type(base.__name__, (_OurModel, base), {})()
    inner._partially_observable = False
    del inner.sawyer_observation_space  # cached while the goal was hidden
    inner._freeze_rand_vec, inner.seeded_rand_vec, inner._set_task_called = False, True, True
    return inner
