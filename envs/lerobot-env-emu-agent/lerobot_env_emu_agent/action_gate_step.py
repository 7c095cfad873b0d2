"""The action gate behind any policy of LeRobot: processor steps `emu_gate_position` and `emu_action_gate`."""

import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.lerobot_types import RobotObservation
from lerobot.processor import ObservationProcessorStep, PolicyActionProcessorStep, ProcessorStepRegistry
from lerobot.utils.constants import OBS_STATE

from emu_agent.errors import ConfigError
from lerobot_env_emu_agent.config_emu_gated import Bound, GateBounds

GATE_POSITION, ACTION_GATE = "emu_gate_position", "emu_action_gate"
Features = dict[PipelineFeatureType, dict[str, PolicyFeature]]

_without_gate: dict[str, "GatePositionStep"] = {}
"""The latest position step of each pair, until its gate has found it: LeRobot builds pipelines one by one."""


@ProcessorStepRegistry.register(GATE_POSITION)
@dataclass(kw_only=True)
class GatePositionStep(ObservationProcessorStep):
    """Tells the gate where the robot stands: the first step before the policy, as later ones normalize."""

    pair: str
    """Which gate; the two steps of a policy have the same."""

    def __post_init__(self) -> None:
        self.state: Any = None
        self.observed_at: float | None = None
        _without_gate[self.pair] = self

    def observation(self, observation: RobotObservation) -> RobotObservation:
        """Note `observation.state`; nothing is changed."""
        self.state, self.observed_at = observation.get(OBS_STATE), time.monotonic()
        return observation

    def get_config(self) -> dict[str, Any]:
        """What builds it again."""
        return {"pair": self.pair}

    def transform_features(self, features: Features) -> Features:
        """Nothing is changed."""
        return features


@dataclass(kw_only=True)
class GateSettings(GateBounds):
    """What a gate behind a policy has to know."""

    names: list[str]
    """Of the actions, in order."""
    hold: Bound | None = None
    """The action that stands still, where actions are displacements; null where they are joint positions."""
    realtime: bool = False
    """Whether rate and age are checked by the wall clock, as real robots want it."""


@ProcessorStepRegistry.register(ACTION_GATE)
@dataclass(kw_only=True)
class ActionGateStep(GateSettings, PolicyActionProcessorStep):
    """The action gate, the last step behind a policy: actions in the robot's units, one for each observation.

    Where several robots are in a batch, each has its gate; `log` counts the interventions. LeRobot's `reset`
    lets gates begin anew where the robots stand; an emergency stop outlasts it in real time only.
    """

    pair: str
    """The `GatePositionStep` with the same name tells where the robot stands."""

    def __post_init__(self) -> None:
        """Build the bounds.

        Raises:
            ConfigError: One is absent, or for other actions.
        """
        from lerobot_env_emu_agent.gated_limits import gated_limits

        self.limits = gated_limits(self, self.names, hold=self.hold, flag="--")
        self.log: Any = None
        self._gates: list[Any] = []
        self._started = False
        self._position = _without_gate.pop(self.pair, None)

    def action(self, action: torch.Tensor) -> torch.Tensor:
        """Let pass what the robots may be told.

        Raises:
            ConfigError: The actions are others, come as chunks, or no observation came before them.
            SafetyError: A robot stands where it must not be.
        """
        if action.shape[1:] != (self.limits.action_dim,):
            raise ConfigError(
                f"the action gate takes one action of {self.limits.action_dim} numbers for each robot "
                f"({', '.join(self.names)}), not {tuple(action.shape)}: say the "
                f"policy's own names, and act by --inference.type=sync: no chunk can be bounded ahead of time"
            )
        standing, observed_at = self._standing(len(action))
        if not self._started or len(self._gates) != len(action):
            self._start(standing)
        wanted = action.detach().cpu().numpy()
        sent = [gate(one, observed_at=observed_at) for gate, one in zip(self._gates, wanted, strict=True)]
        return torch.from_numpy(np.stack(sent)).to(action)

    def reset(self) -> None:
        """An episode begins."""
        self._started = False
        if not self.realtime:
            self._gates = []

    def get_config(self) -> dict[str, Any]:
        """What builds it again."""
        config = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**config, "gate_log": None if self.gate_log is None else str(self.gate_log)}

    def transform_features(self, features: Features) -> Features:
        """Nothing is changed."""
        return features

    def _start(self, standing: np.ndarray) -> None:
        from emu_policies import ActionGate, InterventionLog

        self.log = self.log or InterventionLog(self.gate_log and Path(self.gate_log))
        if len(self._gates) != len(standing):
            clock = time.monotonic if self.realtime else None
            self._gates = [ActionGate(self.limits, clock=clock, log=self.log) for _ in standing]
        for gate, position in zip(self._gates, standing, strict=True):
            gate.start(position)
        self._started = True

    def _standing(self, robots: int) -> tuple[np.ndarray, float | None]:
        """Where the robots stand, or the action that stands still, and when that was seen."""
        self._position = self._position or _without_gate.pop(self.pair, None)
        state, observed_at = None, None
        if self._position is not None:  # each observation is good for one action
            state, self._position.state = self._position.state, None
            observed_at = self._position.observed_at
        if self.hold is not None:
            return np.tile(self.limits.array("hold"), (robots, 1)), observed_at
        standing = None if state is None else np.atleast_2d(state.detach().cpu().numpy())
        if standing is None or standing.shape != (robots, self.limits.action_dim):
            raise ConfigError(
                f"a gate for joint positions needs {OBS_STATE} with {', '.join(self.names)} before every "
                f"action, and got {'nothing' if standing is None else f'shape {standing.shape}'}: have "
                f"{GATE_POSITION} as the first step before the policy, say hold=... where actions are "
                f"displacements, or put the gate before the robot (--robot.type=emu_gated)"
            )
        return standing, observed_at
