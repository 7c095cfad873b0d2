"""A folder as Emu3.5 is published, tiny, whose language model says one sentence before every picture."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig
from emu_agent.tokens.text import RANKS_FILE, VISION_FILE, EmuTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.config import TransformerConfig
from emu_agent.world_model.transformer import WorldModel

SENTENCE = "Reach for the cube."
HIDDEN = 16
SURE = 20.0
"""Score of the token that must come next; all others have about 0."""


def write_official(root: Path, tokenizer_files: Path, *, ends: bool = False) -> Path:
    """Write `Emu3.5` and `Emu3.5-VisionTokenizer` side by side; returns the first.

    Args:
        root: where to write.
        tokenizer_files: folder of the published text tokenizer.
        ends: the model ends after its first picture, instead of going on for ever.
    """
    folder = root / "Emu3.5"
    folder.mkdir(parents=True)
    for name in (RANKS_FILE, VISION_FILE):
        (folder / name).symlink_to(tokenizer_files / name)
    words = EmuTokenizer.from_folder(folder).encode(SENTENCE)
    vocabulary = Vocabulary.official()
    shape = TransformerConfig(
        vocab_size=vocabulary.size, hidden_size=HIDDEN, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=4, max_position_embeddings=16_384,
    )  # fmt: skip
    config = {"model_type": "Emu3", "architectures": ["Emu3ForCausalLM"], **shape.to_dict()}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(_speaking(shape, vocabulary, words, ends=ends)), folder / "model.safetensors")
    _write_image_tokenizer(root / "Emu3.5-VisionTokenizer", vocabulary)
    return folder


def _speaking(
    shape: TransformerConfig, vocabulary: Vocabulary, words: list[int], *, ends: bool
) -> Mapping[str, torch.Tensor]:
    """Weights in which every token but the pictures' says alone what comes next."""
    torch.manual_seed(0)
    chain = [*words, vocabulary.boi]
    tail = [vocabulary.eoi, vocabulary.ess, vocabulary.eos] if ends else []
    assert len(set(chain + tail)) == len(chain + tail) <= HIDDEN
    model = WorldModel(shape)
    embedding, head = torch.zeros(2, shape.vocab_size, HIDDEN).unbind(0)
    visual = slice(vocabulary.visual.start, vocabulary.visual.stop)
    embedding[: visual.start, 0] = 1.0  # whatever has no successor of its own is followed by the first word
    embedding[visual], head[visual] = torch.randn(2, len(vocabulary.visual), HIDDEN).unbind(0)
    head[chain[0], 0] = SURE
    pairs = [*pairwise(chain), *pairwise(tail)]
    for direction, (token, successor) in enumerate(pairs, start=1):
        embedding[token] = torch.eye(HIDDEN)[direction]
        head[successor, direction] = SURE
    head[vocabulary.eoc, len(words)] = SURE / 2  # where a picture may not follow, the step ends
    layer = model.model.layers[0]
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(embedding)
        model.lm_head.weight.copy_(head)
    return {key: tensor.to(torch.bfloat16) for key, tensor in model.state_dict().items()}


def _write_image_tokenizer(folder: Path, vocabulary: Vocabulary) -> None:
    torch.manual_seed(0)
    config = ImageTokenizerConfig(
        ch=4, ch_mult=(1, 1, 1, 1, 1), num_res_blocks=1, norm_groups=4, z_channels=4, embed_dim=4,
        n_embed=len(vocabulary.visual), codebook_std=1.0, attn_resolutions=(),
    )  # fmt: skip
    folder.mkdir()
    values = {
        key: list(value) if isinstance(value, tuple) else value for key, value in config.to_dict().items()
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    save_file(ImageTokenizer(config).state_dict(), folder / "model.safetensors")
