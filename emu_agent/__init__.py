"""A token model that looks at camera frames and an instruction, and imagines the next step.

The public names load on first use, so that `import emu_agent` costs nothing and needs neither torch nor a
simulator.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emu_agent.config import config_dir, load_config
    from emu_agent.errors import EmuAgentError
    from emu_agent.exploration import Exploration
    from emu_agent.imagination import Imagination, ImaginationConfig, ImaginationEngine
    from emu_agent.observation import Observation
    from emu_agent.official import generate, load_image_tokenizer, load_text_tokenizer
    from emu_agent.rollout import run_episode
    from emu_agent.tokens.vocabulary import Vocabulary
    from emu_agent.world_model.checkpoint import load_world_model

    __version__: str

_HOME = {
    "EmuAgentError": "errors",
    "Exploration": "exploration",
    "Imagination": "imagination",
    "ImaginationConfig": "imagination",
    "ImaginationEngine": "imagination",
    "Observation": "observation",
    "Vocabulary": "tokens.vocabulary",
    "config_dir": "config",
    "generate": "official",
    "load_config": "config",
    "load_image_tokenizer": "official",
    "load_text_tokenizer": "official",
    "load_world_model": "world_model.checkpoint",
    "run_episode": "rollout",
}

__all__ = [
    "EmuAgentError",
    "Exploration",
    "Imagination",
    "ImaginationConfig",
    "ImaginationEngine",
    "Observation",
    "Vocabulary",
    "__version__",
    "config_dir",
    "generate",
    "load_config",
    "load_image_tokenizer",
    "load_text_tokenizer",
    "load_world_model",
    "run_episode",
]


def __getattr__(name: str) -> object:
    """Import the module that defines a public name when the name is first used."""
    if name == "__version__":
        return metadata.version("emu-agent")
    if name not in _HOME:
        raise AttributeError(f"module 'emu_agent' has no attribute {name!r}; it offers {sorted(__all__)}")
    return getattr(import_module(f"emu_agent.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
