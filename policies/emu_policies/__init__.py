"""Policies: what turns observations and imaginations into actions."""

from emu_policies.action_head import ActionHead, HeadContext
from emu_policies.head_batch import HeadBatch
from emu_policies.head_config import ActionHeadConfig
from emu_policies.imagination_policy import ImaginationPolicy, ImaginationPolicyConfig, load_head
from emu_policies.monitor import StepMonitor, StepState
from emu_policies.normalizer import Normalizer
from emu_policies.random_policy import RandomPolicy
from emu_policies.replan import ImaginationReason

__all__ = [
    "ActionHead",
    "ActionHeadConfig",
    "HeadBatch",
    "HeadContext",
    "ImaginationPolicy",
    "ImaginationPolicyConfig",
    "ImaginationReason",
    "Normalizer",
    "RandomPolicy",
    "StepMonitor",
    "StepState",
    "load_head",
]
