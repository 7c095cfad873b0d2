"""A token model that looks at camera frames and an instruction, and imagines the next step.

The public names load on first use, so that `import emu_agent` costs nothing and needs neither torch nor a
simulator.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emu_agent.config import config_dir as config_dir
    from emu_agent.config import load_config as load_config
    from emu_agent.episodes.rollout import run_episode as run_episode
    from emu_agent.errors import EmuAgentError as EmuAgentError
    from emu_agent.imagination.engine import ImaginationEngine as ImaginationEngine
    from emu_agent.imagination.imagination import Imagination as Imagination
    from emu_agent.imagination.imagination import ImaginationConfig as ImaginationConfig
    from emu_agent.observation import Observation as Observation
    from emu_agent.official.assembly import generate as generate
    from emu_agent.official.assembly import official_engine as official_engine
    from emu_agent.tokens.vocabulary import Vocabulary as Vocabulary
    from emu_agent.world_model.checkpoint import load_world_model as load_world_model
    from emu_agent.world_model.tokenizers import load_image_tokenizer as load_image_tokenizer
    from emu_agent.world_model.tokenizers import load_text_tokenizer as load_text_tokenizer

    __version__: str

_HOME = {
    "EmuAgentError": "errors",
    "Imagination": "imagination.imagination",
    "ImaginationConfig": "imagination.imagination",
    "ImaginationEngine": "imagination.engine",
    "Observation": "observation",
    "Vocabulary": "tokens.vocabulary",
    "config_dir": "config",
    "generate": "official.assembly",
    "load_config": "config",
    "load_image_tokenizer": "world_model.tokenizers",
    "load_text_tokenizer": "world_model.tokenizers",
    "load_world_model": "world_model.checkpoint",
    "official_engine": "official.assembly",
    "run_episode": "episodes.rollout",
}

_PUBLIC = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> object:
    """Import the module that defines a public name when the name is first used."""
    if name == "__version__":
        return metadata.version("emu-agent")
    if name not in _HOME:
        raise AttributeError(f"module 'emu_agent' has no attribute {name!r}; it offers {_PUBLIC}")
    return getattr(import_module(f"emu_agent.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return _PUBLIC
