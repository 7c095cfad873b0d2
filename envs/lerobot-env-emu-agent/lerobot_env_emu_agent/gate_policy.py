"""Put the action gate behind a policy that LeRobot has saved, whatever its type.

    python -m lerobot_env_emu_agent.gate_policy --path=runs/act/checkpoints/last/pretrained_model \
        --output=runs/act_gated --names='[shoulder_pan.pos, ...]' --lower=-100 --upper=100 ...

Every command of LeRobot that loads the new folder has the gate: the steps stand in its processor files.
"""

import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draccus
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME

from emu_agent.errors import CheckpointError, ConfigError
from lerobot_env_emu_agent.action_gate_step import ACTION_GATE, GATE_POSITION, ActionGateStep, GateSettings


@dataclass(kw_only=True)
class GatePolicyConfig(GateSettings):
    """Which policy, and the bounds."""

    path: Path
    """Folder with the policy, as LeRobot saves it."""
    output: Path
    """New folder."""


def gate_policy(path: Path, output: Path, **settings: Any) -> None:
    """Copy a saved policy and add the gate to the copy.

    Args:
        path: Folder with the policy.
        output: New folder.
        settings: The fields of `GateSettings`.

    Raises:
        CheckpointError: There is no policy with pipelines, it has a gate already, or the new folder exists.
        ConfigError: A bound is absent, or the policy has another number of actions.
    """
    pair = uuid.uuid4().hex
    gate = ActionGateStep(**settings, pair=pair)
    names = f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json", f"{POLICY_POSTPROCESSOR_DEFAULT_NAME}.json"
    try:
        pre, post = (json.loads((path / name).read_text()) for name in names)
        shape = json.loads((path / "config.json").read_text())["output_features"]["action"]["shape"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is no policy as LeRobot 0.6 saves it (config.json, {', '.join(names)}): {error}"
        ) from error
    if shape != [len(gate.names)]:
        raise ConfigError(f"the policy has actions of shape {shape}, and names are {gate.names}")
    if any(step.get("registry_name") == ACTION_GATE for step in post["steps"]) or output.exists():
        raise CheckpointError(f"{path} has a gate already, or {output} exists: choose another")
    shutil.copytree(path, output)
    pre["steps"].insert(0, {"registry_name": GATE_POSITION, "config": {"pair": pair}})
    post["steps"].append({"registry_name": ACTION_GATE, "config": gate.get_config()})
    for name, pipeline in zip(names, (pre, post), strict=True):
        (output / name).write_text(json.dumps(pipeline, indent=2))


def main(config: GatePolicyConfig) -> None:
    """Write the new folder."""
    gate_policy(**vars(config))


if __name__ == "__main__":
    draccus.wrap()(main)()  # pyright: ignore[reportCallIssue] - it reads the command line
