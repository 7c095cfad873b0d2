"""What `decode_speed.py` times: models, decoders and prompts."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from emu_agent.config import choices_of, load_config, plain_config
from emu_agent.decoding.autoregressive import ImageRequest, decode_image
from emu_agent.decoding.compiled import decode_image_compiled
from emu_agent.decoding.dida import decode_image_dida
from emu_agent.decoding.grammar import ImageBlock
from emu_agent.decoding.noise import DidaConfig
from emu_agent.decoding.sampling import SamplingConfig
from emu_agent.tokens.sequence import ImageGrid
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.checkpoint import load_world_model, read_config
from emu_agent.world_model.config import TransformerConfig, preset
from emu_agent.world_model.fast import FastModel
from emu_agent.world_model.transformer import WorldModel

BASELINE = "autoregressive"
TEXT_TOKENS = 16
"""Words of the prompt, beside its picture; the guidance rows do without half of them."""
BILLION = {
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 20,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip
"""A shape of 1.0 billion parameters in its layers."""


@dataclass(frozen=True)
class Cell:
    """One column of the table."""

    side: int
    batch: int
    guided: bool

    def __str__(self) -> str:
        return f"{self.side}x{self.side}, batch {self.batch}{', guided' * self.guided}"


@dataclass
class Counted:
    """A model that counts what is asked of it."""

    model: Any
    passes: int = 0
    tokens: int = 0
    scored: int = 0

    def hidden_states(self, ids: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        """Read, and count."""
        self.passes, self.tokens = self.passes + 1, self.tokens + ids.numel()
        return self.model.hidden_states(ids, *args, **options)

    def logits(self, hidden: torch.Tensor, ids: range | None = None) -> torch.Tensor:
        """Score, and count."""
        self.scored += hidden.shape[:-1].numel()
        return self.model.logits(hidden, ids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


@dataclass
class Times:
    """What one decoder took in one cell [s], round by round."""

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    counted: Counted | None = None

    def median(self) -> tuple[float, float]:
        """Of the prefills and of the decoding."""
        return float(np.median(self.prefill)), float(np.median(self.decode))


class Bench:
    """The models, the decoders and what they read."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device, self.dtype = torch.device(args.device), getattr(torch, args.dtype)
        self.sampling = SamplingConfig(temperature=args.temperature)
        self.vocabulary, self.slow = build(args, self.device, self.dtype)
        self.fast = FastModel(self.slow, compile=args.compile)
        characters = {character: index for index, character in enumerate("0123456789*")}
        self.block = partial(ImageBlock.build, vocabulary=self.vocabulary, characters=characters)
        dida = {
            f"dida_{passes}": (
                self.fast,
                partial(decode_image_dida, dida=DidaConfig(noise="mask", passes=passes, early_stop=False)),
            )
            for passes in args.passes
        }
        self.decoders: dict[str, tuple[Any, Callable[..., Any]]] = {
            "autoregressive_eager": (self.slow, decode_image),
            BASELINE: (self.fast, decode_image_compiled),
            **dida,
        }

    def time(self, name: str, cell: Cell, times: Times) -> None:
        """Read the prompt and draw one image per row."""
        model, decode = self.decoders[name]
        block = self.block(ImageGrid(cell.side, cell.side))
        ids, valid = self.prompt(cell, block)
        room = ids.shape[1] + len(block.opening) + block.grid.num_tokens + 1
        times.counted = Counted(model)
        generator = torch.Generator(self.device).manual_seed(len(times.decode))
        started = self.now()
        cache, _ = model.prefill(ids, valid, max_length=room)
        filled = self.now()
        scale = 3.0 if cell.guided else None
        reader = model if name == BASELINE else times.counted
        decode(reader, cache, ImageRequest(block, self.sampling, guidance_scale=scale), generator)
        times.decode.append(self.now() - filled)
        times.prefill.append(filled - started)
        if name == BASELINE:  # compiled steps take nothing but the model itself
            steps, rows = block.num_codes - 1, len(ids)
            times.counted.passes = steps + 2
            times.counted.scored = (steps + 1) * rows
            times.counted.tokens = (len(block.opening) + steps + cell.side - 1 + 2) * rows

    def now(self) -> float:
        """Seconds, when everything asked for is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def prompt(self, cell: Cell, block: ImageBlock) -> tuple[torch.Tensor, torch.Tensor | None]:
        """An instruction and a picture of the same grid; the guidance rows know less of the instruction."""
        rows = cell.batch * (2 if cell.guided else 1)
        generator = torch.Generator().manual_seed(0)
        words = torch.randint(self.vocabulary.num_text, (rows, TEXT_TOKENS), generator=generator)
        codes = torch.randint(len(block.codes), (rows, block.grid.num_tokens), generator=generator)
        opening = torch.tensor(block.opening).expand(rows, -1)
        ids = torch.cat((words, opening, codes + block.codes.start), dim=1)
        if not cell.guided:
            return ids.to(self.device), None
        valid = torch.ones_like(ids, dtype=torch.bool)
        valid[cell.batch :, : TEXT_TOKENS // 2] = False
        return ids.to(self.device), valid.to(self.device)

    def fits(self, cell: Cell) -> bool:
        """Whether prompt and picture are within the model's positions."""
        block = self.block(ImageGrid(cell.side, cell.side))
        return positions(block) <= self.slow.config.max_position_embeddings


def positions(block: ImageBlock) -> int:
    """Tokens of a prompt with a picture and of the picture that follows."""
    return TEXT_TOKENS + 2 * (len(block.opening) + block.grid.num_tokens) + 1


def build(
    args: argparse.Namespace, device: torch.device, dtype: torch.dtype
) -> tuple[Vocabulary, WorldModel]:
    """The model to be timed, and its vocabulary."""
    if args.checkpoint:
        vocabulary = Vocabulary.from_dict(read_config(args.checkpoint)["vocabulary"])
        model = load_world_model(args.checkpoint, dtype=dtype, device=device)
        return vocabulary, model.requires_grad_(False)
    shape, codes = BILLION, 32_768
    if args.model in choices_of("experiment"):
        experiment = load_config("train", [f"experiment={args.model}"], allow_missing=True).experiment
        shape, codes = plain_config(experiment.world_model.model), experiment.tokenizer.model.n_embed
    elif args.model != "billion":
        shape = preset(args.model).to_dict()
    vocabulary = Vocabulary.compact(num_text=512, num_codes=codes, num_action_bins=64)
    largest = ImageBlock.build(
        ImageGrid(args.grids[-1], args.grids[-1]), vocabulary, dict.fromkeys("0123456789*", 0)
    )
    wanted = {"vocab_size": vocabulary.size, "max_position_embeddings": positions(largest)}
    torch.manual_seed(0)
    model = WorldModel(TransformerConfig.from_dict({**shape, **wanted}))
    return vocabulary, model.to(device, dtype).eval().requires_grad_(False)
