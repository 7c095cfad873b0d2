"""What keyframes lose when they are drawn in a few passes: every decoder imagines from the same frames.

Run `python benchmarks/decode_quality.py` on a checkpoint that `train stage=dida` has made. The frames are
of held-out episodes, which no stage trains on.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from matplotlib.figure import Figure
from torch import Tensor

from emu_agent.data.codes import load_codes
from emu_agent.data.frames import Frames, load_frames
from emu_agent.data.plans import Plan, Plans
from emu_agent.decoding.noise import DidaConfig
from emu_agent.decoding.sampling import SamplingConfig
from emu_agent.evaluation.pictures import score_pictures
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import ImaginationConfig
from emu_agent.provenance import provenance
from emu_agent.run_folder import replacing, write_json
from emu_agent.world_model.checkpoint import bundled_checkpoint, read_config

BATCH = 32
KEPT = ("psnr", "ssim", "region_psnr", "region_ssim", "region_gain_db")
PANELS = {
    "psnr": "PSNR [dB]",
    "ssim": "SSIM",
    "region_psnr": "PSNR where it changes [dB]",
    "agreement": "codes equal to next-token decoding",
}
COLOURS = ("#0b7285", "#d9480f", "#5f3dc4")


@dataclass(frozen=True)
class Contexts:
    """Held-out frames and what was recorded after them."""

    frames: Frames
    camera: str
    codes: Tensor
    plans: tuple[Plan, ...]

    def pictures(self, keyframes: bool) -> np.ndarray:
        """The recorded keyframes, or the frames from which is imagined."""
        indices = [plan.steps[0].keyframe if keyframes else plan.frame for plan in self.plans]
        return self.frames.images[self.camera][indices]


def load_contexts(engine: ImaginationEngine, camera: str, args: argparse.Namespace) -> Contexts:
    """Evenly spread frames of the held-out episodes."""
    frames = load_frames(args.dataset, [camera])
    found = Plans(frames, frames.split(args.held_out)[1], 1)
    chosen = np.linspace(0, len(found) - 1, min(args.frames, len(found))).astype(int)
    codes = load_codes(frames, camera, engine.image_tokenizer)
    return Contexts(frames, camera, codes, tuple(found[i] for i in chosen))


def imagine(engine: ImaginationEngine, contexts: Contexts, seed: int) -> tuple[list[str], Tensor, Tensor]:
    """Step texts, codes and log-probabilities of the keyframes imagined from all frames."""
    generator = torch.Generator().manual_seed(seed)
    texts, codes, scores = [], [], []
    for start in range(0, len(contexts.plans), BATCH):
        part = contexts.plans[start : start + BATCH]
        instructions = [contexts.frames.instructions[plan.episode] for plan in part]
        context = engine.context(contexts.codes[[plan.frame for plan in part]], instructions)
        made = engine.imagine(context, generator=generator)
        texts += [row[0][0] for row in made.text]
        codes.append(made.codes[:, 0, 0])
        scores.append(made.image_log_prob[:, 0, 0])
    return texts, torch.cat(codes), torch.cat(scores)


def entropy_bits(codes: Tensor, num_codes: int) -> float:
    """Entropy of the codes in use: less than the truth's is less variety."""
    shares = codes.flatten().bincount(minlength=num_codes) / codes.numel()
    return float(-(shares * shares.clamp(min=1e-12).log2()).sum())


def distance(engine: ImaginationEngine, codes: Tensor, truth: Tensor) -> float:
    """Mean squared distance of the codes' unit vectors: 0 is the same code, 2 an unrelated one."""
    entries = F.normalize(engine.image_tokenizer.quantize.embedding.weight, dim=-1)
    return float((entries[codes] - entries[truth]).square().sum(-1).mean())


@torch.no_grad()
def figures(engine: ImaginationEngine, contexts: Contexts, made: tuple, reference: Tensor) -> dict[str, Any]:
    """How near the imagined keyframes are to the recorded ones and to the reference decoder's."""
    texts, codes, scores = made
    truth = contexts.codes[[plan.steps[0].keyframe for plan in contexts.plans]]
    pictures = engine.image_tokenizer.decode(codes).numpy()
    scored = score_pictures(pictures, contexts.pictures(True), contexts.pictures(False)).summary()
    return {
        **{name: scored[name] for name in KEPT},
        "code_distance": distance(engine, codes, truth),
        "agreement": float((codes == reference).float().mean()),
        "entropy_bits": entropy_bits(codes, engine.image_tokenizer.num_codes),
        "image_log_prob": float(scores.mean()),
        "step_accuracy": float(
            np.mean([text == p.steps[0].text for text, p in zip(texts, contexts.plans, strict=True)])
        ),
    }


def changed(engine: ImaginationEngine, settings: Sequence[str]) -> ImaginationEngine:
    """The engine with other settings of DiDA, given as `name=value`."""
    values = {name: yaml.safe_load(value) for name, value in (text.split("=") for text in settings)}
    dida = DidaConfig.from_dict(engine.dida.to_dict() | values)
    return ImaginationEngine(
        engine.image_tokenizer, engine.sequence_format, engine.world_model, engine.action_bins,
        replace(engine.config, passes=None), dida=dida,
    )  # fmt: skip


def measure(checkpoint: Path, args: argparse.Namespace, temperature: float) -> list[dict[str, Any]]:
    """One row of figures per decoder and number of passes; the first decoder is the reference."""
    sampling, rows, reference = SamplingConfig(temperature=temperature), [], None
    camera = read_config(checkpoint)["camera"]
    cells = [("autoregressive", None), *(("dida", passes) for passes in args.passes)]
    if temperature:
        cells.insert(1, ("autoregressive", None))  # with another seed: what two samples have in common
    for number, (decoder, passes) in enumerate(cells):
        config = ImaginationConfig(decoder=decoder, passes=passes, image=sampling, force=args.force)
        engine = changed(ImaginationEngine.from_pretrained(checkpoint, config), args.dida)
        contexts = load_contexts(engine, camera, args)
        again = number > 0 and decoder == "autoregressive"
        made = imagine(engine, contexts, args.seed + again)
        reference = made[1] if reference is None else reference
        row = {"decoder": decoder + " again" * again, "passes": passes, "temperature": temperature}
        rows.append({**row, **figures(engine, contexts, made, reference)})
        print(f"{row['decoder']:>20} {passes or '':>3}  T {temperature:.1f}  PSNR {rows[-1]['psnr']:6.2f}  "
              f"SSIM {rows[-1]['ssim']:.4f}  agreement {rows[-1]['agreement']:.3f}")  # fmt: skip
    return rows


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Quality over passes, one line per temperature; next-token decoding as level lines."""
    figure = Figure(figsize=(3.4 * len(PANELS), 3.2), layout="constrained")
    panels = figure.subplots(1, len(PANELS))
    for axes, (name, label) in zip(panels, PANELS.items(), strict=True):
        for number, temperature in enumerate(dict.fromkeys(row["temperature"] for row in rows)):
            here = [row for row in rows if row["temperature"] == temperature]
            dida = [row for row in here if row["decoder"] == "dida"]
            style = {"color": COLOURS[number % len(COLOURS)]}
            values = [row[name] for row in dida]
            axes.plot(
                [row["passes"] for row in dida], values, "o-", label=f"DiDA, T={temperature:g}", **style
            )
            level = next((row for row in here if row["decoder"] == "autoregressive again"), here[0])
            axes.axhline(level[name], ls="--", label=f"next token, T={temperature:g}", **style)
        axes.set_title(label, fontsize=9)
        axes.set(xlabel="passes")
        axes.grid(visible=True, alpha=0.3)
    panels[-1].legend(fontsize=7)
    return figure


def main() -> None:
    """Measure all decoders, greedily and sampled, and store JSON and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--dataset", type=Path, default=Path("data/robosuite_Lift"))
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 2, 3, 4, 6, 8])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--dida", nargs="*", default=[], metavar="NAME=VALUE", help="such as temperature=1.5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--force", action="store_true", help="measure a checkpoint that was not adapted")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/decode_quality.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    checkpoint = args.checkpoint or bundled_checkpoint()
    rows = [row for temperature in args.temperatures for row in measure(checkpoint, args, temperature)]
    settings = {"frames": args.frames, "seed": args.seed, "changed": args.dida}
    settings["dida"] = read_config(checkpoint).get("dida")
    write_json(args.output, {"rows": rows, **settings, **provenance()})
    with replacing(args.output.with_suffix(".png")) as part:
        draw(rows).savefig(part, format="png", dpi=120)


if __name__ == "__main__":
    main()
