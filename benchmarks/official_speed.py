"""Guided decoding at the width of the published model: ours against `transformers`, in turns.

Run `python benchmarks/official_speed.py` (needs `pip install transformers`). Two layers of the official size
with random weights; both sides hold the very same tensors. Ours reads both guidance rows at once and scores
only the ids that may follow; theirs is `generate` with `guidance_scale`: two calls of the model per token.

The published vocabulary (282,926 ids) would take 11.6 GB for embedding and head in float32. They are tied
here, and `--vocabulary-share` shrinks text and visual ids alike; the layers take 3.9 GB in any case.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from emu_agent.decoding.autoregressive import ImageRequest
from emu_agent.decoding.compiled import decode_image_compiled
from emu_agent.decoding.grammar import ImageBlock
from emu_agent.decoding.sampling import GREEDY
from emu_agent.errors import ConfigError
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json
from emu_agent.tokens.sequence import ImageGrid
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.config import TransformerConfig, preset
from emu_agent.world_model.fast import FastModel
from emu_agent.world_model.transformer import WorldModel

NUM_TEXT, NUM_CODES = 151_643, 131_072
"""Text and visual ids of the published vocabulary."""
SCALE = 3.0


def shape(args: argparse.Namespace, vocabulary: Vocabulary) -> TransformerConfig:
    """The official layers, few of them."""
    return preset(
        args.preset,
        vocab_size=vocabulary.size,
        num_hidden_layers=args.layers,
        max_position_embeddings=1024,
        attention_dropout=0.0,
        tie_word_embeddings=True,
    )


def theirs(model: WorldModel) -> Any:
    """A Qwen3 of `transformers` that holds the tensors of ours."""
    try:
        from transformers import Qwen3Config, Qwen3ForCausalLM
    except ImportError:
        sys.exit(
            "this benchmark compares with transformers, which is not installed: pip install transformers"
        )
    config = Qwen3Config(
        **model.config.to_dict(), attention_bias=False, bos_token_id=None, eos_token_id=None, pad_token_id=0
    )
    with torch.device("meta"):
        twin = Qwen3ForCausalLM(config)
    rotary = type(twin.model.rotary_emb)
    twin.load_state_dict(model.state_dict(), strict=False, assign=True)
    twin.tie_weights()
    # The rotary table is in no checkpoint, so it is made anew off the meta device.
    twin.model.rotary_emb = rotary(config)
    return twin.eval().requires_grad_(False)


def ours(model: FastModel, prompt: torch.Tensor, block: ImageBlock) -> Callable[[], torch.Tensor]:
    """One image, guided, both rows at once."""
    rows = prompt.repeat(2, 1)
    valid = torch.ones_like(rows, dtype=torch.bool)
    valid[1, : rows.shape[1] // 2] = False

    def draw() -> torch.Tensor:
        cache, _ = model.prefill(rows, valid, max_length=rows.shape[1] + block.grid.block_length)
        return decode_image_compiled(model, cache, ImageRequest(block, GREEDY, guidance_scale=SCALE)).codes

    return draw


def generate(twin: Any, prompt: torch.Tensor, count: int) -> Callable[[], torch.Tensor]:
    """As many tokens from `transformers`, guided by a second call per token."""
    half = prompt.shape[1] // 2

    def draw() -> torch.Tensor:
        return twin.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            guidance_scale=SCALE,
            negative_prompt_ids=prompt[:, half:],
            negative_prompt_attention_mask=torch.ones_like(prompt[:, half:]),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
        )

    return draw


def same_numbers(model: FastModel, twin: Any, prompt: torch.Tensor) -> float:
    """Largest difference between the hidden states of the two, relative to their size."""
    mine, other = model.hidden_states(prompt), twin.model(prompt).last_hidden_state
    return float((mine - other).abs().max() / other.abs().max())


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="emu3_5")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocabulary-share", type=float, default=0.25)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--side", type=int, default=8, help="rows and columns of the image")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/official_speed.json"))
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    """Time both in turns, and store tokens per second."""
    args = arguments()
    torch.set_num_threads(args.threads)
    vocabulary = Vocabulary.compact(
        num_text=round(NUM_TEXT * args.vocabulary_share),
        num_codes=round(NUM_CODES * args.vocabulary_share),
        num_action_bins=4,
    )
    torch.manual_seed(0)
    model = WorldModel(shape(args, vocabulary)).eval().requires_grad_(False)
    fast = FastModel(model, compile=args.compile)
    characters = {character: index for index, character in enumerate("0123456789*")}
    block = ImageBlock.build(ImageGrid(args.side, args.side), vocabulary, characters)
    twin = theirs(model)
    prompt = torch.randint(vocabulary.num_text, (1, args.prompt))
    if (difference := same_numbers(fast, twin, prompt)) > 1e-4:
        raise ConfigError(f"the two models differ by {difference:.1e}, so their speeds say nothing")
    # Structure tokens come free with ours; they are not counted, and theirs is not asked for them.
    run = {"ours": ours(fast, prompt, block), "transformers": generate(twin, prompt, block.num_codes)}
    seconds: dict[str, list[float]] = {name: [] for name in run}
    for round_number in range(args.rounds + 1):
        for name, draw in run.items():
            started = time.perf_counter()
            draw()
            if round_number:  # the first round compiles and fills caches
                seconds[name].append(time.perf_counter() - started)
    speed = {name: block.num_codes / statistics.median(times) for name, times in seconds.items()}
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    results = {"tokens_per_second": speed, "speedup": speed["ours"] / speed["transformers"]}
    write_json(args.output, {**results, "settings": settings, "difference": difference, **provenance()})
    print("  ".join(f"{name} {value:.2f} tokens/s" for name, value in speed.items()), end="")
    print(f"  {results['speedup']:.2f}x")


if __name__ == "__main__":
    main()
