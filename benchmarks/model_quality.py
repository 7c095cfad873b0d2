"""What the bundled models see and imagine on held-out episodes.

Run `python benchmarks/model_quality.py`. The held-out episodes are the last of the dataset that `collect`
makes; no stage trains on them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emu_agent.data.codes import load_codes
from emu_agent.data.frames import Frames, load_frames
from emu_agent.data.plans import Plan, Plans
from emu_agent.evaluation.pictures import psnr_from_mse
from emu_agent.evaluation.validation import score_imagination, score_simulation
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json
from emu_agent.training.sequences import imagine_sequence, next_token_losses
from emu_agent.world_model.checkpoint import bundled_checkpoint, read_config

CHUNK = 8
"""Actions that are simulated at once."""
AROUND = 2
"""Frames on either side of a change of step that are left out where the step is told apart best."""


def inside(plan: Plan, frames: Frames) -> bool:
    """Whether the step changes neither shortly before nor shortly after a plan's frame."""
    t = plan.frame - frames.span(plan.episode).start
    changes = [segment.start for segment in frames.segments[plan.episode][1:]]
    return not any(change - AROUND <= t < change + AROUND for change in changes)


def reconstruction(
    engine: ImaginationEngine, codes: Tensor, pictures: np.ndarray, chosen: np.ndarray
) -> dict[str, float]:
    """Pictures from their codes, and how many of all codes they need."""
    decoded = engine.image_tokenizer.decode(codes[chosen]).numpy()
    errors = np.square(decoded.astype(np.float32) - pictures[chosen]).mean(axis=(1, 2, 3))
    return {
        "reconstruction_psnr": float(np.mean([psnr_from_mse(float(error)) for error in errors])),
        "codebook_use": len(codes[chosen.min() :].unique()) / engine.image_tokenizer.num_codes,
    }


def text_and_codes(
    engine: ImaginationEngine, frames: Frames, codes: Tensor, some: list[Plan]
) -> dict[str, float]:
    """Next-token losses on recorded steps and keyframes."""
    grammar = engine.sequence_format
    sequences = [
        imagine_sequence(grammar, codes, plan, 1, frames.instructions[plan.episode], 1.0) for plan in some
    ]
    with torch.inference_mode():
        return next_token_losses(engine.world_model, sequences, grammar.vocabulary, 32)


def spread[T](items: Sequence[T], count: int) -> list[T]:
    """So many of them, evenly."""
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]


def main() -> None:
    """Score reconstruction, imagination and simulation, and store the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--before", type=Path, default=None, help="the world model before stage=dida")
    parser.add_argument("--dataset", type=Path, default=Path("data/robosuite_Lift"))
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--frames", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/model_quality.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    checkpoint = args.checkpoint or bundled_checkpoint()
    engine, config = ImaginationEngine.from_pretrained(checkpoint), read_config(checkpoint)
    frames = load_frames(args.dataset, [config["camera"]])
    codes = load_codes(frames, config["camera"], engine.image_tokenizer)
    _, held_out = frames.split(args.held_out)
    spans, pictures = [frames.span(episode) for episode in held_out], frames.images[config["camera"]]
    some = spread(Plans(frames, held_out, 1), args.frames)
    within = [plan for plan in some if inside(plan, frames)]
    starts = [start for span in spans for start in range(span.start, span.stop - CHUNK)]
    figures = {
        **reconstruction(
            engine, codes, pictures, np.array(spread(frames.rows(held_out).tolist(), args.frames))
        ),
        **score_imagination(engine, frames, codes, some, pictures),
        "share_inside": len(within) / len(some),
        "step_accuracy_inside": score_imagination(engine, frames, codes, within, pictures)["step_accuracy"],
        **score_simulation(engine, frames, codes, np.array(spread(starts, args.frames)), CHUNK, pictures),
        **text_and_codes(engine, frames, codes, some),
    }
    if args.before is not None:
        before = ImaginationEngine.from_pretrained(args.before)
        losses = text_and_codes(before, frames, codes, some)
        figures |= {f"{name}_change": figures[name] / loss - 1.0 for name, loss in losses.items()}
    write_json(
        args.output,
        {
            "checkpoint": "bundled" if args.checkpoint is None else args.checkpoint.as_posix(),
            "updates": {name: stage["updates"] for name, stage in config["training"].items()},
            "dataset": args.dataset.as_posix(),
            "held_out_episodes": len(held_out),
            "frames": args.frames,
            "figures": figures,
            **provenance(),
        },
    )
    for name, value in figures.items():
        print(f"{name:>28}  {value:8.3f}")


if __name__ == "__main__":
    main()
