"""Policies: what turns observations and imaginations into actions."""

from emu_policies.action_head import ActionHead, HeadContext
from emu_policies.gate import ActionGate
from emu_policies.gated_policy import GatedPolicy
from emu_policies.head_batch import HeadBatch
from emu_policies.head_config import ActionHeadConfig
from emu_policies.imagination_policy import ImaginationPolicy, ImaginationPolicyConfig, load_head
from emu_policies.interventions import Intervention, InterventionKind, InterventionLog
from emu_policies.limits import ActionLimits, Workspace
from emu_policies.monitor import StepMonitor, StepState
from emu_policies.noisy_policy import NoisyPolicy
from emu_policies.normalizer import Normalizer
from emu_policies.random_policy import RandomPolicy
from emu_policies.replan import ImaginationReason

__all__ = [
    "ActionGate",
    "ActionHead",
    "ActionHeadConfig",
    "ActionLimits",
    "GatedPolicy",
    "HeadBatch",
    "HeadContext",
    "ImaginationPolicy",
    "ImaginationPolicyConfig",
    "ImaginationReason",
    "Intervention",
    "InterventionKind",
    "InterventionLog",
    "NoisyPolicy",
    "Normalizer",
    "RandomPolicy",
    "StepMonitor",
    "StepState",
    "Workspace",
    "load_head",
]
