"""A token model that looks at camera frames and an instruction, and imagines the next step.

The public names load on first use, so that `import emu_agent` costs nothing and needs neither torch nor a
simulator.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emu_agent.config import config_dir, load_config
    from emu_agent.episodes.rollout import run_episode
    from emu_agent.errors import EmuAgentError
    from emu_agent.imagination.engine import ImaginationEngine
    from emu_agent.imagination.imagination import Imagination, ImaginationConfig
    from emu_agent.observation import Observation
    from emu_agent.official.assembly import official_engine
    from emu_agent.official.folders import generate
    from emu_agent.tokens.vocabulary import Vocabulary
    from emu_agent.world_model.checkpoint import load_world_model
    from emu_agent.world_model.tokenizers import load_image_tokenizer, load_text_tokenizer

    __version__: str

_HOME = {
    "EmuAgentError": "errors",
    "Imagination": "imagination.imagination",
    "ImaginationConfig": "imagination.imagination",
    "ImaginationEngine": "imagination.engine",
    "Observation": "observation",
    "Vocabulary": "tokens.vocabulary",
    "config_dir": "config",
    "generate": "official.folders",
    "load_config": "config",
    "load_image_tokenizer": "world_model.tokenizers",
    "load_text_tokenizer": "world_model.tokenizers",
    "load_world_model": "world_model.checkpoint",
    "official_engine": "official.assembly",
    "run_episode": "episodes.rollout",
}

__all__ = [
    "EmuAgentError",
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
    "official_engine",
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
