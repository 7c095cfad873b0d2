"""Policies: what turns observations and imaginations into actions."""

from emu_policies.baselines.noisy_policy import NoisyPolicy
from emu_policies.baselines.random_policy import RandomPolicy
from emu_policies.head.action_head import ActionHead, HeadContext
from emu_policies.head.head_batch import HeadBatch
from emu_policies.head.head_config import ActionHeadConfig
from emu_policies.head.loading import load_head
from emu_policies.head.monitor import StepMonitor, StepState
from emu_policies.head.normalizer import Normalizer
from emu_policies.planning.imagination_policy import ImaginationPolicy, ImaginationPolicyConfig
from emu_policies.planning.replan import ImaginationReason
from emu_policies.safety.gate import ActionGate
from emu_policies.safety.gated_policy import GatedPolicy
from emu_policies.safety.interventions import Intervention, InterventionKind, InterventionLog
from emu_policies.safety.limits import ActionLimits, Workspace

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
