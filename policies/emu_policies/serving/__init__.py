"""Policies over the network: a server beside the GPU, a client beside the robot, no pickle between."""

from emu_policies.serving.client import RemotePolicy as RemotePolicy
from emu_policies.serving.client import RemotePolicyConfig as RemotePolicyConfig
from emu_policies.serving.link import LinkConfig as LinkConfig
from emu_policies.serving.loop import LoopReport as LoopReport
from emu_policies.serving.loop import Robot as Robot
from emu_policies.serving.loop import run_control_loop as run_control_loop
from emu_policies.serving.messages import BadMessageError as BadMessageError
from emu_policies.serving.server import PolicyServer as PolicyServer
from emu_policies.serving.server import ServerConfig as ServerConfig
