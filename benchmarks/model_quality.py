"""What the bundled models see and imagine on held-out episodes.

Run `python benchmarks/model_quality.py`. The held-out episodes are the last of the dataset that `collect`
makes; no stage trains on them.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from emu_agent.data.codes import load_codes
from emu_agent.data.frames import load_frames
from emu_agent.data.plans import plans
from emu_agent.imagination import ImaginationEngine, bundled_checkpoint
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json
from emu_agent.scoring.imagination import score_imagination, score_simulation
from emu_agent.scoring.pictures import psnr_from_mse
from emu_agent.world_model.checkpoint import read_config


def main() -> None:
    """Score reconstruction, imagination and simulation, and store the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--dataset", type=Path, default=Path("data/robosuite_lift"))
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--frames", type=int, default=512)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/model_quality.json"))
    args = parser.parse_args()
    torch.set_num_threads(2)
    checkpoint = args.checkpoint or bundled_checkpoint()
    engine, config = ImaginationEngine.from_pretrained(checkpoint), read_config(checkpoint)
    camera = config["camera"]
    frames = load_frames(args.dataset, [camera])
    codes = load_codes(frames, camera, engine.image_tokenizer)
    _, held_out = frames.split(args.held_out)
    first, pictures = frames.span(held_out[0]).start, frames.images[camera]
    chosen = np.linspace(first, len(frames) - 1, args.frames).astype(int)
    decoded = engine.image_tokenizer.decode(codes[chosen]).numpy()
    errors = np.square(decoded.astype(np.float32) - pictures[chosen]).mean(axis=(1, 2, 3))
    candidates = plans(frames, held_out, 1)
    some = [candidates[i] for i in np.linspace(0, len(candidates) - 1, args.frames).astype(int)]
    chunk = 8
    starts = np.concatenate([np.arange(s.start, s.stop - chunk) for s in map(frames.span, held_out)])
    starts = starts[np.linspace(0, len(starts) - 1, args.frames).astype(int)]
    figures = {
        "reconstruction_psnr": float(np.mean([psnr_from_mse(float(error)) for error in errors])),
        "codebook_use": len(codes[first:].unique()) / engine.image_tokenizer.num_codes,
        **score_imagination(engine, frames, codes, some, pictures),
        **score_simulation(engine, frames, codes, starts, chunk, pictures),
    }
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
