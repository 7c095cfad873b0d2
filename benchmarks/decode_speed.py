"""How fast keyframes are drawn: decoders by grids by rows, in turns within one process.

Run `python benchmarks/decode_speed.py`. Weights are random unless `--checkpoint` names some: speed does not
depend on them. On a GPU try `--model billion --dtype bfloat16`.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from decode_cells import BASELINE, Bench, Cell, Counted, Times

from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json
from emu_agent.tokens.sequence import ImageGrid


def ceilings(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """What this machine can do at best: a large matrix product and a copy, measured."""
    side, size = (8192, 2**32) if device.type == "cuda" else (2048, 2**28)
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    seconds = [best(work, device) for work in (lambda: matrix @ matrix, lambda: target.copy_(source))]
    return {"matrix_gflops": 2e-9 * side**3 / seconds[0], "memory_gb_per_s": 2e-9 * size / seconds[1]}


def best(work: Callable[[], Any], device: torch.device) -> float:
    """Shortest of some times [s]."""
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def measure(bench: Bench, cell: Cell, args: argparse.Namespace, guess: dict[str, float]) -> dict[str, Times]:
    """Time all decoders in turns; `guess` holds what a code has taken each of them [s]."""
    codes, measured = cell.side**2, {}
    for name in bench.decoders:
        expected = guess.get(name, 0.0) * codes
        if expected > args.time_limit:
            print(f"{cell}: {name} left out, it would take {expected:.0f} s (time limit {args.time_limit} s)")
        else:
            measured[name] = Times()
    started = time.perf_counter()
    for round_number in range(args.rounds):
        for name, times in measured.items():
            bench.time(name, cell, times)
        if time.perf_counter() - started > args.time_limit:
            print(f"{cell}: {round_number + 1} rounds instead of {args.rounds} (time limit)")
            break
    for name, times in measured.items():
        # A longer context makes a code dearer, hence the allowance.
        guess[name] = 1.5 * times.median()[1] / codes
    return measured


def figures(
    bench: Bench, cell: Cell, measured: dict[str, Times], ceiling: dict[str, float]
) -> dict[str, Any]:
    """The row of each decoder."""
    rows = cell.batch * (2 if cell.guided else 1)
    block = bench.block(ImageGrid(cell.side, cell.side))
    prompt = bench.prompt(cell, block)[0].shape[1]
    baseline = measured[BASELINE].median()[1] if BASELINE in measured else None
    made = {}
    for name, times in measured.items():
        prefill, decode = times.median()
        assert times.counted is not None
        flops, size = work(bench, times.counted, rows, prompt + block.grid.num_tokens / 2)
        made[name] = {
            "ms_per_frame": 1e3 * decode / cell.batch,
            "ms_per_frame_with_prefill": 1e3 * (prefill + decode) / cell.batch,
            "tokens_per_second": cell.side**2 * cell.batch / decode,
            "passes": times.counted.passes,
            "share_of_matrix_ceiling": flops / decode / 1e9 / ceiling["matrix_gflops"],
            "share_of_memory_ceiling": size / decode / 1e9 / ceiling["memory_gb_per_s"],
            "speedup": baseline / decode if baseline else None,
            "rounds": len(times.decode),
        }
    return {"grid": cell.side, "batch": cell.batch, "guided": cell.guided, "prompt": prompt, "decoders": made}


def work(bench: Bench, counted: Counted, rows: int, seen: float) -> tuple[float, float]:
    """Operations and bytes that decoding cannot do without: matrices, cached keys and values."""
    config, head = bench.slow.config, len(bench.vocabulary.visual) * bench.slow.config.hidden_size
    layers = sum(weight.numel() for weight in bench.slow.model.layers.parameters())
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * seen
    flops = counted.tokens * (2 * layers + attention) + 2 * counted.scored * head
    cached = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * seen * rows
    return flops, counted.passes * (layers + head + cached) * bench.dtype.itemsize


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    """Small grids first; batches, then the guidance pair."""
    for side, (batch, guided) in itertools.product(
        args.grids, [*((b, False) for b in args.batch), (1, True)]
    ):
        yield Cell(side, batch, guided)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Time per frame over codes per frame, one line per decoder, for single frames."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    single = [row for row in rows if row["batch"] == 1 and not row["guided"]]
    for name in dict.fromkeys(name for row in single for name in row["decoders"]):
        points = [
            (r["grid"] ** 2, r["decoders"][name]["ms_per_frame"]) for r in single if name in r["decoders"]
        ]
        axes.loglog(*zip(*points, strict=True), marker="o", label=name.replace("_", " "))
    sides = [row["grid"] for row in single]
    axes.set_xticks([side**2 for side in sides], [f"{side}x{side}" for side in sides])
    axes.minorticks_off()
    axes.set(xlabel="codes of a frame", ylabel="milliseconds per frame, one frame at a time")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="lift_nano", help="an experiment, a transformer preset or billion")
    parser.add_argument("--checkpoint", type=Path, default=None, help="real weights instead")
    parser.add_argument("--grids", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 2, 3, 4, 6, 8])
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument(
        "--time-limit", type=float, default=120.0, help="per cell, and per run of a decoder [s]"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/decode_speed.json"))
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    """Fill the table cell by cell, and store it after each."""
    args = arguments()
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    ceiling = ceilings(bench.device, bench.dtype)
    table, guess = [], {}
    for cell in cells(args):
        if not bench.fits(cell):
            print(
                f"{cell}: left out, it needs more than {bench.slow.config.max_position_embeddings} positions"
            )
            continue
        if cell.side == args.grids[0]:  # compilation; later grids need none, lengths are left open
            for name in bench.decoders:
                bench.time(name, cell, Times())
        table.append(figures(bench, cell, measure(bench, cell, args, guess), ceiling))
        for name, row in table[-1]["decoders"].items():
            print(
                f"{cell!s:>22} {name:>20} {row['ms_per_frame']:9.1f} ms per frame "
                f"{row['tokens_per_second']:9.0f} codes/s  {row['speedup'] or 0.0:5.1f}x"
            )
        settings = {
            key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()
        }
        shape = bench.slow.config.to_dict()
        write_json(
            args.output,
            {"settings": settings, "shape": shape, "ceilings": ceiling, "cells": table, **provenance()},
        )
    draw(table, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
