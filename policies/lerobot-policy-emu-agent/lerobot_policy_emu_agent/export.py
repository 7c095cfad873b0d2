"""An agent checkpoint in the form that `--policy.path` of LeRobot's commands takes.

    python -m lerobot_policy_emu_agent.export CHECKPOINT OUTPUT

What lerobot-train saves has this form already; this is for what `emu-agent train` makes.
"""

import argparse
import shutil
from pathlib import Path

from emu_agent.errors import ConfigError
from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig
from lerobot_policy_emu_agent.modeling_emu_agent import EmuAgentPolicy
from lerobot_policy_emu_agent.processor_emu_agent import make_emu_agent_pre_post_processors


def export(checkpoint: Path | None, output: Path) -> None:
    """Write the policy and its processors to `output`.

    Args:
        checkpoint: folder of an agent checkpoint; None is the one inside emu-agent.
        output: a folder that does not exist yet.

    Raises:
        CheckpointError: the folder is no agent checkpoint, or a part of it is missing.
        ConfigError: there is something at `output`.
    """
    if output.exists():
        raise ConfigError(f"{output} exists; name a folder that does not")
    config = EmuAgentConfig(
        pretrained_agent=None if checkpoint is None else str(checkpoint), device="cpu", push_to_hub=False
    )
    policy = EmuAgentPolicy(config)
    before, after = make_emu_agent_pre_post_processors(policy.config)
    part = output.with_name(output.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for piece in (policy, before, after):
        piece.save_pretrained(part)
    part.replace(output)


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description="An agent checkpoint for LeRobot's --policy.path")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    export(args.checkpoint, args.output)


if __name__ == "__main__":
    main()
