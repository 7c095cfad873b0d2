"""What LeRobot does to a batch before the policy and to an action behind it."""

from typing import Any

import torch
from lerobot.processor import PolicyAction, PolicyProcessorPipeline
from lerobot.processor.factory import make_default_pre_post_processors

from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig

Pipeline = PolicyProcessorPipeline[dict[str, Any], dict[str, Any]]
ActionPipeline = PolicyProcessorPipeline[PolicyAction, PolicyAction]


def make_emu_agent_pre_post_processors(
    config: EmuAgentConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
) -> tuple[Pipeline, ActionPipeline]:
    """LeRobot's usual steps, of which only renaming, batching and moving to the device do anything.

    The normalizers are there because lerobot-train and lerobot-rollout ask for them by name. What the policy
    calls an action, and what real-time chunking hands back to it, is in the units of the dataset.
    """
    return make_default_pre_post_processors(config, dataset_stats)
