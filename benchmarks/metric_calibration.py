"""What the scorer's own metrics say about pictures and paths of which the answer is known.

Run `python benchmarks/metric_calibration.py` on a dataset of robosuite Lift. It corrupts held-out frames more
and more, puts real frames in order of their distance in time, and plays episodes again in the simulator to
compare what is found in pixels with where the object is.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from emu_envs.suites.robosuite import RobosuiteEnv
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from emu_agent.data.frames import Frames, load_frames
from emu_agent.data.lerobot_writer import read_side_file
from emu_agent.evaluation.metrics.actions import action_direction, action_following, inverse_dynamics_error
from emu_agent.evaluation.metrics.lite0 import load_lite0
from emu_agent.evaluation.metrics.motion import Motion, learn_motion, motion_scores
from emu_agent.evaluation.metrics.objects import Palette, object_track
from emu_agent.evaluation.metrics.perceptual import Sight, crowd, lite0_distance, lite0_frechet, look
from emu_agent.evaluation.metrics.reader import Reader, ReaderConfig, load_reader, mean_actions
from emu_agent.evaluation.metrics.usefulness import spearman
from emu_agent.evaluation.pictures import changed_region, score_pictures
from emu_agent.provenance import provenance
from emu_agent.run_folder import replacing, write_json

type Change = Callable[[np.ndarray, np.ndarray, float], np.ndarray]

CORRUPTIONS: dict[str, tuple[str, tuple[float, ...], Change]] = {
    "blur": ("sigma [px]", (0.5, 1, 2, 4), lambda true, now, by: gaussian_filter(true, (0, by, by, 0))),
    "noise": (
        "deviation [levels]",
        (4, 8, 16, 32),
        lambda true, now, by: true + np.random.default_rng(0).normal(0, by, true.shape),
    ),
    "shift": ("to the right [px]", (1, 2, 4, 8), lambda true, now, by: np.roll(true, int(by), axis=2)),
    "mix": (
        "share of the present frame",
        (0.25, 0.5, 0.75, 1),
        lambda true, now, by: true * (1 - by) + now * by,
    ),
}
"""Unit, strengths, and what makes worse frames of the true and the present ones."""

DELAYS = (1, 2, 4, 8, 16, 24)
CHUNK, STEPS = 8, 3


def corrupted(true: np.ndarray, now: np.ndarray, change: Change, by: float) -> np.ndarray:
    """Frames after a corruption, as 8-bit pictures again."""
    return np.clip(change(true.astype(np.float32), now.astype(np.float32), by), 0, 255).astype(np.uint8)


def starts_of(frames: Frames, episodes: range, per_episode: int, ahead: int) -> np.ndarray:
    """Evenly spread frames of the episodes that have `ahead` frames behind them."""
    spans = [frames.span(episode) for episode in episodes if len(frames.span(episode)) > ahead]
    rows = [np.linspace(span.start, span.stop - 1 - ahead, per_episode).astype(int) for span in spans]
    return np.concatenate(rows)


def growth(pictures: np.ndarray, starts: np.ndarray) -> dict[str, Any]:
    """How every metric of pictures answers to more and more corruption of the frames after a chunk."""
    network = load_lite0()
    now, truth = pictures[starts], pictures[starts + CHUNK]
    regions = np.stack([changed_region(a, b) for a, b in zip(now, truth, strict=True)])
    seen = look(network, truth)
    table: dict[str, Any] = {}
    for name, (unit, strengths, change) in CORRUPTIONS.items():
        rows = []
        for by in strengths:
            worse = corrupted(truth, now, change, by)
            rows.append({"by": by, **compared(look(network, worse), seen, worse, truth, now, regions)})
        table[name] = {"unit": unit, "rows": rows}
    return table


def compared(
    ours: Sight, theirs: Sight, worse: np.ndarray, truth: np.ndarray, now: np.ndarray, regions: np.ndarray
) -> dict[str, float]:
    """Means of the metrics of pictures over some frames."""
    scores = score_pictures(worse, truth, now)
    return {
        "psnr": float(scores.psnr.mean()),
        "ssim": float(scores.ssim.mean()),
        "region_psnr": float(np.nanmean(scores.region_psnr)),
        "lite0_distance": float(lite0_distance(ours, theirs).mean()),
        "region_lite0_distance": float(np.nanmean(lite0_distance(ours, theirs, regions))),
        "lite0_frechet": lite0_frechet(crowd(ours), crowd(theirs)),
        "region_lite0_frechet": lite0_frechet(crowd(ours, regions), crowd(theirs, regions)),
    }


def real_frames(pictures: np.ndarray, starts: np.ndarray) -> dict[str, Any]:
    """Whether later frames are farther away, and how far those of another episode are."""
    network = load_lite0()
    first = look(network, pictures[starts])
    later = [look(network, pictures[starts + delay]) for delay in DELAYS]
    distances = np.stack([lite0_distance(first, sight) for sight in later])
    ranks = [spearman(np.asarray(DELAYS, float), column) for column in distances.T]
    elsewhere = lite0_distance(first, later[0][list(np.roll(np.arange(len(starts)), 7))])
    return {
        "delays": list(DELAYS),
        "lite0_distance": distances.mean(axis=1).tolist(),
        "spearman_with_delay": float(np.nanmean(ranks)),
        "lite0_distance_to_another_episode": float(elsewhere.mean()),
        "pictures": len(starts),
    }


def paths(motion: Motion, pictures: np.ndarray, proprio: np.ndarray, starts: np.ndarray) -> dict[str, Any]:
    """Metrics of motion for the truth and for futures that are wrong in a known way."""
    points = starts[:, None] + np.arange(STEPS + 1) * CHUNK
    true, start, states = pictures[points[:, 1:]], pictures[starts], proprio[points]
    futures = {
        "truth": true,
        "blurred": gaussian_filter(true, (0, 0, 1, 1, 0)),
        "half as fast": pictures[starts[:, None] + np.arange(1, STEPS + 1) * (CHUNK // 2)],
        "frozen": np.repeat(start[:, None], STEPS, axis=1),
        "reversed": true[:, ::-1],
        "another episode's": np.roll(true, 7, axis=0),
    }
    scores = {name: motion_scores(motion, future, true, start, states) for name, future in futures.items()}
    return {
        name: {metric: float(np.nanmean(values[:, -1])) for metric, values in columns.items()}
        for name, columns in scores.items()
    }


def reading(
    reader: Reader, frames: Frames, camera: str, starts: np.ndarray, hand: list[int]
) -> dict[str, Any]:
    """How well states and actions are read from real frames that the reader was not trained on."""
    pictures, scale, readable = frames.images[camera], reader.action_scale_numbers, reader.readable_actions
    done = mean_actions(frames.executed, starts, CHUNK)
    read = reader.read_actions(pictures[starts], pictures[starts + CHUNK])
    other = np.roll(np.arange(len(starts)), 7)
    miss = np.linalg.norm((reader.read_states(pictures[starts]) - frames.proprio[starts])[:, hand], axis=1)

    def error(actions: np.ndarray) -> float:
        return float(inverse_dynamics_error(actions, done, scale, readable).mean())

    changes = (read[other] - read, done[other] - done, scale, readable)
    return {
        "hand_error_m": {"mean": float(miss.mean()), "p90": float(np.quantile(miss, 0.9))},
        "readable_actions": np.flatnonzero(readable).tolist(),
        "action_variance_explained": reader.action_explained.tolist(),
        "inverse_dynamics_error": {
            "real pairs": error(read),
            "frozen": error(np.zeros_like(read)),
            "reversed": error(-read),
            "another episode's": error(read[other]),
        },
        "action_following_of_real_futures": float(np.nanmean(action_following(*changes))),
        "action_direction_of_real_futures": float(np.nanmean(action_direction(*changes))),
    }


def replayed(frames: Frames, camera: str, palette: Palette, seeds: dict[int, int]) -> dict[str, Any]:
    """The object as found in recorded pictures against where it is when the episodes are played again."""
    env = RobosuiteEnv("Lift", camera_names=[camera], image_size=frames.images[camera].shape[1])
    gaps, drifts, steps = [], [], 0
    for episode, seed in seeds.items():
        span = frames.span(episode)
        observation, _ = env.reset(seed=seed)
        true = []
        for t in span:
            drifts.append(float(np.abs(observation["agent_pos"] - frames.proprio[t]).max()))
            true.append(projected(env))
            observation, *_ = env.step(frames.executed[t])
        found = object_track(palette, frames.images[camera][span.start : span.stop])
        gaps.append(np.linalg.norm(found - np.array(true), axis=1))
        steps += len(span)
    env.close()
    gap = np.concatenate(gaps)
    return {
        "object_error_percent_of_width": {
            "mean": float(np.nanmean(gap)), "p90": float(np.nanquantile(gap, 0.9)),
        },
        "share_of_frames_found": float(np.isfinite(gap).mean()),
        "largest_drift_of_the_replay": max(drifts),
        "episodes": len(seeds),
        "frames": steps,
    }  # fmt: skip


def projected(env: RobosuiteEnv) -> tuple[float, float]:
    """Centre of the object in the picture (x, y) [% of width]."""
    model, data = env.simulation
    camera = model.camera(env.mujoco_cameras[0]).id
    place = env.privileged_state()["cube_position"] - data.cam_xpos[camera]
    x, y, z = data.cam_xmat[camera].reshape(3, 3).T @ place
    focal = 50 / np.tan(np.radians(model.cam_fovy[camera]) / 2)
    return 50 + focal * x / -z, 50 - focal * y / -z


def draw(table: dict[str, Any], delays: dict[str, Any]) -> Figure:
    """Distance over strength of each corruption, and over time between real frames."""
    figure = Figure(figsize=(3.0 * (len(table) + 1), 2.8), layout="constrained")
    panels = figure.subplots(1, len(table) + 1, sharey=True)
    for axes, (name, entry) in zip(panels, table.items(), strict=False):
        for metric, colour in (("lite0_distance", "#0b7285"), ("region_lite0_distance", "#d9480f")):
            values = [row[metric] for row in entry["rows"]]
            axes.plot([row["by"] for row in entry["rows"]], values, "o-", color=colour, label=metric)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(entry["unit"], fontsize=8)
    panels[-1].plot(delays["delays"], delays["lite0_distance"], "o-", color="#0b7285")
    panels[-1].axhline(delays["lite0_distance_to_another_episode"], ls="--", color="#0b7285")
    panels[-1].set_title("real frames (dashed: another episode)", fontsize=9)
    panels[-1].set_xlabel("frames apart", fontsize=8)
    panels[0].legend(fontsize=7)
    for axes in panels:
        axes.grid(visible=True, alpha=0.3)
    return figure


def main() -> None:
    """Calibrate everything and store JSON and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, default=Path("data/robosuite_Lift"))
    parser.add_argument("--camera", default="agentview")
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--per-episode", type=int, default=4)
    parser.add_argument("--replays", type=int, default=10)
    parser.add_argument("--hand", type=int, nargs=3, default=[7, 8, 9])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/metric_calibration.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    frames = load_frames(args.dataset, [args.camera])
    training, held_out = frames.split(args.held_out)
    pictures = frames.images[args.camera]
    starts = starts_of(frames, held_out, args.per_episode, max(*DELAYS, CHUNK * STEPS))
    found: dict[str, Any] = {"pictures": growth(pictures, starts), "real": real_frames(pictures, starts)}
    reader = load_reader(frames, args.camera, training, ReaderConfig(gap=CHUNK))
    motion = learn_motion(frames, args.camera, training, reader, tuple(args.hand))
    found["motion"] = paths(motion, pictures, frames.proprio, starts)
    found["reading"] = reading(reader, frames, args.camera, starts, args.hand)
    if motion.palette is not None:
        episodes = read_side_file(args.dataset)["episodes"]
        seeds = {episode: episodes[episode]["seed"] for episode in held_out[: args.replays]}
        found["object"] = replayed(frames, args.camera, motion.palette, seeds)
    write_json(args.output, {**found, "samples": len(starts), **provenance()})
    with replacing(args.output.with_suffix(".png")) as part:
        draw(found["pictures"], found["real"]).savefig(part, format="png", dpi=120)


if __name__ == "__main__":
    main()
