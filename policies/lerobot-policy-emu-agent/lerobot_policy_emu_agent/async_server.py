"""LeRobot's asynchronous inference server with our policy in it.

LeRobot's server neither finds plug-ins nor has an option for more policies, so it is started through here:

    python -m lerobot_policy_emu_agent.async_server --port=8080

It unpickles what it receives without asking who sent it: whoever reaches the port can execute code as the
user who started it. `emu-agent serve` does the same work without pickle, with a token and with TLS.
"""

import logging
from dataclasses import dataclass, fields

import draccus
from emu_policies.serving.security import is_loopback
from lerobot.async_inference import constants, policy_server
from lerobot.async_inference.configs import PolicyServerConfig
from lerobot.utils.import_utils import register_third_party_plugins

from emu_agent.errors import ServingError

POLICY = "emu_agent"

_log = logging.getLogger(__name__)


@dataclass
class AsyncServerConfig(PolicyServerConfig):
    """LeRobot's settings, and a say on who may reach the server."""

    host: str = "127.0.0.1"
    """Address to listen at."""
    insecure: bool = False
    """Listen beyond this machine, where everybody who reaches the port can execute code on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.insecure or is_loopback(self.host)):
            raise ServingError(
                f"--host={self.host} can be reached from other machines, and LeRobot's server executes what "
                f"they send: listen at 127.0.0.1 and tunnel to it with SSH, use `emu-agent serve`, or say "
                f"--insecure=true"
            )


def admit_policy() -> None:
    """Let LeRobot's server know our policy, and whatever other plug-ins bring."""
    register_third_party_plugins()
    if POLICY not in constants.SUPPORTED_POLICIES:
        constants.SUPPORTED_POLICIES.append(POLICY)


def serve(config: AsyncServerConfig) -> None:
    """Serve until interrupted."""
    admit_policy()
    if not is_loopback(config.host):
        _log.warning("everybody who reaches %s:%d can execute code here", config.host, config.port)
    settings = {field.name: getattr(config, field.name) for field in fields(PolicyServerConfig)}
    policy_server.serve(PolicyServerConfig(**settings))


if __name__ == "__main__":
    draccus.wrap()(serve)()
