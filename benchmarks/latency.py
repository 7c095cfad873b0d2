"""How long the agent takes to look, to act and to imagine.

Run `python benchmarks/latency.py`.
"""

import argparse
import time
from pathlib import Path

import emu_envs  # noqa: F401 - registers the environments
import gymnasium
import numpy as np
import torch
from emu_policies import ImaginationPolicy

from emu_agent.observation import Observation
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}


def first_observation() -> Observation:
    """How an episode begins: what is imagined of noise may have more words than a step has."""
    env = gymnasium.make("emu/robosuite/Lift")
    raw, _ = env.reset(seed=100_000)
    observation = Observation.from_gym(raw, env.unwrapped.instruction)  # type: ignore[attr-defined]
    env.close()
    return observation


def main() -> None:
    """Time chunks without imagination and imaginations in turns, one observation at a time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/latency.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    never = ImaginationPolicy.from_pretrained(args.checkpoint, imagine="never")
    imagining = {
        decoder: ImaginationPolicy.from_pretrained(args.checkpoint, imagine="always", decoder=decoder)
        for decoder in ("dida", "autoregressive")
    }
    observation = first_observation()
    chunk: list[float] = []
    imagine: dict[str, list[float]] = {decoder: [] for decoder in imagining}
    for round_number in range(args.rounds + 3):
        never.reset(round_number)
        never.predict_action_chunk(observation)
        for decoder, policy in imagining.items():
            policy.reset(round_number)
            policy.predict_action_chunk(observation)
            if round_number >= 3:
                imagine[decoder].append(policy.last_timing["imagine_ms"])
        if round_number >= 3:
            chunk.append(never.last_timing["chunk_ms"])
        time.sleep(0.01)
    figures = {"chunk_ms": percentiles(chunk)}
    figures |= {f"imagine_{decoder}_ms": percentiles(values) for decoder, values in imagine.items()}
    write_json(args.output, {**figures, "threads": args.threads, "rounds": args.rounds, **provenance()})
    for name, values in figures.items():
        print(f"{name:>26}  p50 {values['p50']:7.1f}  p95 {values['p95']:7.1f}")


if __name__ == "__main__":
    main()
