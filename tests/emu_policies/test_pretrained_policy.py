"""The policy on a real imagination engine, untrained and tiny, read from a checkpoint folder."""

from pathlib import Path

import pytest
import torch
from emu_policies import ActionHead, ActionHeadConfig, ImaginationPolicy

from emu_agent.errors import CheckpointError, ConfigError, UnknownNameError
from emu_agent.imagination import TEXT_FILE
from emu_agent.observation import Observation
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig
from emu_agent.tokens.text import BytePairTokenizer
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
HEAD = ActionHeadConfig(
    feature_dim=24,
    grid_rows=2,
    grid_cols=2,
    wrist_size=32,
    proprio_dim=5,
    action_dim=3,
    chunk_size=4,
    dim=24,
    depth=1,
    num_heads=3,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    text = BytePairTokenizer.train(["lift the cube"], 260)
    vocabulary = Vocabulary.compact(text.num_text, IMAGE.n_embed)
    shape = TransformerConfig(
        vocab_size=vocabulary.size,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
        max_position_embeddings=512,
    )
    parts = {
        "image_tokenizer": (IMAGE, ImageTokenizer(IMAGE)),
        "world_model": (shape, WorldModel(shape)),
        "head": (HEAD, ActionHead(HEAD)),
    }
    config = {
        "parts": {name: part_config.to_dict() for name, (part_config, _) in parts.items()},
        "vocabulary": vocabulary.to_dict(),
        "fingerprint": {"env": "toy"},
        "policy": {"n_action_steps": 2, "max_age": 8},
    }
    tensors = {
        f"{name}.{key}": tensor
        for name, (_, module) in parts.items()
        for key, tensor in module.state_dict().items()
    }
    folder = tmp_path_factory.mktemp("agent") / "checkpoint"
    return write_checkpoint(folder, config, tensors, {TEXT_FILE: text.to_json().encode()})


def observation(rows: int) -> Observation:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, rows, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Observation(
        {"agentview": pictures[0], "wrist": pictures[1]}, torch.zeros(rows, 5), ("lift the cube",) * rows
    )


def test_policy_acts_and_imagines_with_the_engine_of_its_checkpoint(checkpoint: Path) -> None:
    policy = ImaginationPolicy.from_pretrained(checkpoint, imagine="always")
    assert policy.fingerprint == {"env": "toy"}
    assert (policy.config.n_action_steps, policy.config.max_age) == (2, 8)

    def actions(seed: int) -> torch.Tensor:
        policy.reset(seed)
        return torch.stack([policy.select_action(observation(2)) for _ in range(3)])

    first = actions(1)
    assert first.shape == (3, 2, 3)
    assert torch.equal(first, actions(1))
    assert policy.imagination.features.shape == (2, 1, 5, 24)
    assert policy.imagination.pixels(policy.image_tokenizer).shape == (2, 1, 1, 32, 32, 3)


def test_bad_choices_are_refused_before_anything_is_loaded(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"sometimes.*adaptive, always, never"):
        ImaginationPolicy.from_pretrained(checkpoint, imagine="sometimes")
    with pytest.raises(ConfigError, match=r"horizon.*max_age"):
        ImaginationPolicy.from_pretrained(checkpoint, horizon=3)
    with pytest.raises(CheckpointError, match="nowhere"):
        ImaginationPolicy.from_pretrained(tmp_path / "nowhere")
