"""`emu-agent serve`: a policy for robots on the network."""

import logging
from typing import Any

from omegaconf import DictConfig

from emu_agent.config import build


def main(cfg: DictConfig) -> int:
    """Serve until interrupted, then tell what happened."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    server = build(cfg.server, build(cfg.policy))
    try:
        server.serve(lambda ready: _announce(cfg.host, ready))
    except KeyboardInterrupt:
        rows = [f"  {kind:<16} {count}" for kind, count in sorted(server.counts.items())]
        print("\n".join(["", "connections:", *(rows or ["  none"])]))
    return 0


def _announce(host: str, server: Any) -> None:
    address = f"[{host}]" if ":" in host else host
    print(f"serving on {address}:{server.port} ({server.protection}); Ctrl-C stops", flush=True)
