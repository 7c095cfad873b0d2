"""Do policies rank inside the world model as they do in the simulator?

Run `python benchmarks/policy_ranking.py`. The policies are the checkpoints that training a head has kept, the
last of them with noise on its actions, and random actions; both sides begin from the same resets. From each
reset, what the policies would do are also candidates to choose from: are they ranked rightly there? What was
played is kept in `runs/policy_ranking`, so that a stopped benchmark goes on where it was.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from emu_policies.world_model_env.rollout_source import open_world
from ranking import compare_candidates, compare_policies
from tqdm import tqdm

from emu_agent.config import build, load_config
from emu_agent.episodes.rollout import Policy, run_episode
from emu_agent.evaluation.simulated_success import run_imagined
from emu_agent.evaluation.statistics import wilson_interval
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json
from emu_agent.world_model.checkpoint import bundled_checkpoint, weights_digest

RESULT = Path("benchmarks/results/policy_ranking.json")
PLAYED = Path("runs/policy_ranking")
NOISE = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Standard deviations of the noise on all components of the actions of the last checkpoint."""
SHIFT = (0.5, 1.0, 1.5, 2.0)
"""The same on the displacement only, where the recorded demonstrations are noisy too."""


def settings_of(run: Path) -> dict[str, list[str]]:
    """Settings of `emu-agent run` for every policy, by its name."""
    kept = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    heads = {f"head_{n}": ["imagine=never", f"checkpoint={run / 'checkpoints' / str(n)}"] for n in kept}
    best = heads[f"head_{kept[-1]}"]
    noisy = {f"noise_{sigma}": [*best, "policy=noisy", f"policy.sigma={sigma}"] for sigma in NOISE}
    shifted = {
        f"shift_{sigma}": [*best, "policy=noisy", f"policy.sigma={sigma}", "policy.components=[0,1,2]"]
        for sigma in SHIFT
    }
    return {**heads, **noisy, **shifted, "random": ["policy=random"]}


def build_policy(settings: list[str]) -> Policy:
    """The policy that `emu-agent run` would build."""
    return build(load_config("run", settings).policy)


def simulate(
    env: gymnasium.Env, name: str, settings: list[str], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Episodes of a policy in the simulator."""
    folder = PLAYED / f"{args.name}-{args.max_steps}" / kept_name(name, settings)
    files = [folder / f"{seed}.json" for seed in seeds_of(args)]
    policy = None
    for seed, file in zip(tqdm(seeds_of(args), name, unit="episode"), files, strict=True):
        if not file.exists():
            policy = policy or build_policy(settings)
            write_json(file, run_episode(env, policy, seed, max_steps=args.max_steps).to_dict())
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def imagine(
    env: gymnasium.Env, settings: dict[str, list[str]], args: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Outcomes of the same episodes inside the world model; a batch that holds more will do."""
    folder = PLAYED / f"{args.name}-{args.max_steps}" / f"inside-{world_name(args)}"
    inside, world = {}, None
    for name, overrides in settings.items():
        file = folder / f"{kept_name(name, overrides)}.json"
        if not file.exists() or len(json.loads(file.read_text(encoding="utf-8"))["solved"]) < args.episodes:
            world = world or open_world(
                args.dataset, args.world, env=env, seeds=seeds_of(args), max_steps=args.max_steps
            )
            write_json(file, run_imagined(world, build_policy(overrides), args.seed).to_dict())
        episodes = json.loads(file.read_text(encoding="utf-8"))
        kept = {key: episodes[key][: args.episodes] for key in ("solved", "steps", "probability")}
        inside[name] = {"success_rate": float(np.mean(kept["solved"])), **kept}
        print(f"{name:>12}  imagined {inside[name]['success_rate']:6.1%}", flush=True)
    return inside


def kept_name(name: str, settings: list[str]) -> str:
    """Under which a policy's outcomes are kept: other weights are another policy."""
    folders = [word.removeprefix("checkpoint=") for word in settings if word.startswith("checkpoint=")]
    return "-".join([name, *(weights_digest(Path(folder)) for folder in folders)])


def world_name(args: argparse.Namespace) -> str:
    """Tells the world models apart whose outcomes are kept."""
    return weights_digest(args.world or bundled_checkpoint())


def seeds_of(args: argparse.Namespace) -> range:
    """Of the episodes."""
    return range(args.seed, args.seed + args.episodes)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/lift_nano/head"), help="training of the heads")
    parser.add_argument("--name", default="lift_nano", help="under which their episodes are kept")
    parser.add_argument("--world", type=Path, help="checkpoint of the world model; default the bundled one")
    parser.add_argument("--dataset", type=Path, default=Path("data/robosuite_Lift"))
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=100_000)
    parser.add_argument("--max-steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("simulator", "inside"), help="one side, and nothing is stored")
    parser.add_argument("--policies", nargs="+", help="some of them; default all")
    return parser.parse_args()


def main() -> None:
    """Play what is missing on both sides, compare, and store the figures."""
    args = arguments()
    torch.set_num_threads(args.threads)
    settings = settings_of(args.run)
    settings = {name: settings[name] for name in args.policies or settings}
    env = build(load_config("run", []).env.make)
    inside = {} if args.only == "simulator" else imagine(env, settings, args)
    played = {} if args.only == "inside" else {
        name: simulate(env, name, overrides, args) for name, overrides in settings.items()
    }  # fmt: skip
    env.close()
    if args.only is None:
        store(inside, played, args)


def store(
    inside: dict[str, dict[str, Any]], played: dict[str, list[dict[str, Any]]], args: argparse.Namespace
) -> None:
    """Compare both sides, and write and print what comes out."""
    outside = {name: [bool(one["success"]) for one in episodes] for name, episodes in played.items()}
    ranking = compare_policies({name: one["solved"] for name, one in inside.items()}, outside)
    candidates = compare_candidates({name: one["probability"] for name, one in inside.items()}, outside)
    rows = {
        name: {
            "imagined": one,
            "simulated": {
                "success_rate": float(np.mean(outside[name])),
                "wilson95": list(wilson_interval(sum(outside[name]), len(outside[name]))),
                "solved": outside[name],
                "steps": [episode["steps"] for episode in played[name]],
            },
        }
        for name, one in inside.items()
    }
    content = {
        "ranking": ranking,
        "candidates": candidates,
        "policies": rows,
        "run": str(args.run),
        "world": f"{args.world or 'bundled'} {world_name(args)}",
        "seed": args.seed,
        "max_steps": args.max_steps,
    }
    write_json(RESULT, {**content, **provenance()})
    for name, row in rows.items():
        imagined, simulated = (row[side]["success_rate"] for side in ("imagined", "simulated"))
        print(f"{name:>12}  imagined {imagined:6.1%}  simulated {simulated:6.1%}")
    for name in ("pearson", "spearman", "mmrv"):
        print(f"{name:>12}  {ranking[name]}\n{'in between':>12}  {ranking['middle'][name]}")
    for name in ("kendall", "spearman", "chosen", "by_chance"):
        print(f"{name:>12}  {candidates[name]} (candidates, {candidates['starts']} starts)")


if __name__ == "__main__":
    main()
