"""Policies over the network: a server beside the GPU, a client beside the robot, no pickle between."""

from emu_policies.serving.client import RemotePolicy, RemotePolicyConfig
from emu_policies.serving.link import LinkConfig
from emu_policies.serving.loop import LoopReport, Robot, run_control_loop
from emu_policies.serving.messages import BadMessageError
from emu_policies.serving.server import PolicyServer, ServerConfig

__all__ = [
    "BadMessageError",
    "LinkConfig",
    "LoopReport",
    "PolicyServer",
    "RemotePolicy",
    "RemotePolicyConfig",
    "Robot",
    "ServerConfig",
    "run_control_loop",
]
