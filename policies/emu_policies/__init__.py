"""Policies: what turns observations and imaginations into actions."""

from emu_policies.baselines.noisy_policy import NoisyPolicy as NoisyPolicy
from emu_policies.baselines.random_policy import RandomPolicy as RandomPolicy
from emu_policies.head.action_head import ActionHead as ActionHead
from emu_policies.head.action_head import HeadContext as HeadContext
from emu_policies.head.head_config import ActionHeadConfig as ActionHeadConfig
from emu_policies.head.head_data import HeadBatch as HeadBatch
from emu_policies.head.loading import load_head as load_head
from emu_policies.head.monitor import SubtaskMonitor as SubtaskMonitor
from emu_policies.head.monitor import SubtaskState as SubtaskState
from emu_policies.head.normalizer import Normalizer as Normalizer
from emu_policies.planning.imagination_policy import ImaginationPolicy as ImaginationPolicy
from emu_policies.planning.imagination_policy import ImaginationPolicyConfig as ImaginationPolicyConfig
from emu_policies.planning.replan import ImaginationReason as ImaginationReason
from emu_policies.safety.gate import ActionGate as ActionGate
from emu_policies.safety.gated_policy import GatedPolicy as GatedPolicy
from emu_policies.safety.interventions import Intervention as Intervention
from emu_policies.safety.interventions import InterventionKind as InterventionKind
from emu_policies.safety.interventions import InterventionLog as InterventionLog
from emu_policies.safety.limits import ActionLimits as ActionLimits
from emu_policies.safety.limits import Workspace as Workspace
