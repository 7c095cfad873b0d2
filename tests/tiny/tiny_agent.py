"""The smallest agent that has every part, with random weights."""

from pathlib import Path
from typing import Any

import torch
from emu_policies import ActionHead, ActionHeadConfig

from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import ImaginationConfig
from emu_agent.observation import Observation
from emu_agent.tokens.action import ActionBins
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig
from emu_agent.tokens.sequence import SequenceFormat
from emu_agent.tokens.text import TEXT_FILE, BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.checkpoint import write_checkpoint
from emu_agent.world_model.config import TransformerConfig
from emu_agent.world_model.transformer import WorldModel

IMAGE = ImageTokenizerConfig(
    ch=8,
    ch_mult=(1, 1),
    num_res_blocks=1,
    attn_resolutions=(),
    resolution=32,
    z_channels=8,
    embed_dim=8,
    n_embed=16,
    norm_groups=4,
    patch_size=8,
)
"""Pictures of 32 x 32 pixels to 2 x 2 codes."""
TRANSFORMER = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
HEAD = ActionHeadConfig(
    feature_dim=24,
    grid_rows=2,
    grid_cols=2,
    camera_size=(32, 32),
    proprio_dim=5,
    action_dim=3,
    chunk_size=4,
    dim=24,
    depth=1,
    num_heads=3,
)


def build_engine(
    bins: ActionBins | None = None, seed: int = 0, action_features: int = 0, **settings: Any
) -> ImaginationEngine:
    """An engine that imagines nonsense; `settings` are those of `ImaginationConfig`."""
    torch.manual_seed(seed)
    text = BytePairTokenizer.train(["lift the cube", "0123456789*"], 260)
    vocabulary = Vocabulary.compact(text.num_text, IMAGE.n_embed, num_action_bins=8)
    shape = TransformerConfig(vocab_size=vocabulary.size, action_features=action_features, **TRANSFORMER)
    config = ImaginationConfig(**{"max_text_tokens": 4, **settings})
    known = {} if bins is None else {"none": bins}
    return ImaginationEngine(
        ImageTokenizer(IMAGE), SequenceFormat(vocabulary, text), WorldModel(shape), known, config
    )


def write_agent(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A checkpoint with tokenizer, world model and head; `config` goes into its config.json."""
    engine = build_engine(seed=seed)
    parts = {
        "image_tokenizer": (IMAGE, engine.image_tokenizer),
        "world_model": (engine.world_model.config, engine.world_model),
        "head": (HEAD, ActionHead(HEAD)),
    }
    whole = {
        "parts": {name: part_config.to_dict() for name, (part_config, _) in parts.items()},
        "vocabulary": engine.sequence_format.vocabulary.to_dict(),
        **config,
    }
    tensors = {
        f"{name}.{key}": tensor
        for name, (_, module) in parts.items()
        for key, tensor in module.state_dict().items()
    }
    text = engine.sequence_format.text_tokenizer.to_json().encode()
    return write_checkpoint(folder, whole, tensors, {TEXT_FILE: text})


def observation(rows: int = 2) -> Observation:
    """Noise from both cameras."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, rows, 32, 32, 3), dtype=torch.uint8, generator=generator)
    instructions = ("lift the cube", "lift it")[:rows]
    return Observation({"agentview": pictures[0], "wrist": pictures[1]}, torch.zeros(rows, 5), instructions)
