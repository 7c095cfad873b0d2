"""Does `simulate` heed actions? One simulator state, several chunks, true futures beside predicted ones.

    python benchmarks/counterfactual.py episodes=20

From states of the policy's own episodes four chunks are played: the policy's, holding still, the policy's
with the displacement negated, and a random displacement. Reported are the skill (1 - squared error over that
of repeating the frame, where either future changes) and, for the three other chunks, the correlation of the
predicted and the true difference to the future of the policy's chunk.
"""

import sys
from pathlib import Path
from typing import Any

import emu_envs  # noqa: F401 - registers the environments
import gymnasium
import numpy as np
import torch
from emu_envs.protocol import simulation_env
from emu_policies import ImaginationPolicy

from emu_agent import ImaginationEngine, Observation
from emu_agent.evaluation.statistics import mean_interval
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json

TASK, FIRST_SEED, CHUNK, STARTS, CAMERA = "emu/robosuite/Lift", 111_000, 8, (0, 8, 16), "agentview"
CHANGED = 20
"""A pixel has changed if a channel differs by more than this."""
RESULT = Path(__file__).parent / "results" / "counterfactual.json"


def chunks_from(own: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The policy's chunk and others from the same state."""
    hold, negated, other = np.zeros_like(own), own.copy(), own.copy()
    hold[:, -1] = own[0, -1]
    negated[:, :-1] *= -1
    other[:, :3] = rng.uniform(-1, 1, 3)
    return {"policy": own, "hold": hold, "negated": negated, "random": other}


def play(
    env: gymnasium.Env, policy: ImaginationPolicy, seed: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Branches from some states of one episode, with the image before and the true image after each."""
    raw, _ = env.reset(seed=seed)
    policy.reset(seed)
    inner, rows = simulation_env(env), []
    states, images, actions = [], [], []
    for _ in range(max(STARTS) + CHUNK):
        states.append(inner.get_state())
        images.append(raw["pixels"][CAMERA])
        actions.append(policy.select_action(Observation.from_gym(raw, inner.instruction))[0].numpy())
        raw, *_ = env.step(actions[-1])
    for start in STARTS:
        own = np.stack(actions[start : start + CHUNK])
        for name, chunk in chunks_from(own, rng).items():
            inner.set_state(states[start])
            for action in chunk:
                raw, *_ = env.unwrapped.step(action)
            after = raw["pixels"][CAMERA]
            rows.append({"seed": seed, "kind": name, "before": images[start], "chunk": chunk, "after": after})
    return rows


def predict(engine: ImaginationEngine, rows: list[dict[str, Any]]) -> np.ndarray:
    """What the world model says the camera will show after each chunk."""
    pictures = []
    for i in range(0, len(rows), 16):
        some = rows[i : i + 16]
        codes = engine.image_tokenizer.encode(torch.from_numpy(np.stack([row["before"] for row in some])))
        after, _ = engine.simulate(codes, torch.from_numpy(np.stack([row["chunk"] for row in some])).float())
        pictures.append(engine.image_tokenizer.decode(after).numpy())
    return np.concatenate(pictures).astype(np.float32)


def figures(rows: list[dict[str, Any]], predicted: np.ndarray) -> dict[str, Any]:
    """Skill and correlation of differences, by kind of chunk, with intervals over episodes."""
    now, true = (np.stack([row[name] for row in rows]).astype(np.float32) for name in ("before", "after"))
    kinds, seeds = [row["kind"] for row in rows], np.array([row["seed"] for row in rows])
    found, place = {}, {kind: np.flatnonzero(np.array(kinds) == kind) for kind in dict.fromkeys(kinds)}
    for kind, i in place.items():
        moved = (
            np.maximum(np.abs(true[i] - now[i]), np.abs(predicted[i] - now[i])).max(-1, keepdims=True)
            > CHANGED
        )
        errors = [(((one - true[i]) ** 2) * moved).sum((1, 2, 3)) for one in (predicted[i], now[i])]
        row: dict[str, Any] = {"skill": float(1 - errors[0].sum() / errors[1].sum()), "states": len(i)}
        if kind != "policy":
            own = place["policy"]
            ours, theirs = predicted[i] - predicted[own], true[i] - true[own]
            norms = np.sqrt((ours**2).sum((1, 2, 3)) * (theirs**2).sum((1, 2, 3)))
            values = (ours * theirs).sum((1, 2, 3)) / np.maximum(norms, 1e-6)
            row["correlation"] = mean_interval(values, seeds[i]).to_dict()
        found[kind] = row
    return found


def main() -> None:
    """Play, predict, and write the figures."""
    settings = dict(word.split("=") for word in sys.argv[1:])
    episodes = int(settings.get("episodes", 20))
    torch.set_num_threads(1)
    env, rng = gymnasium.make(TASK), np.random.default_rng(5)
    policy, engine = ImaginationPolicy.from_pretrained(imagine="never"), ImaginationEngine.from_pretrained()
    rows = [row for seed in range(FIRST_SEED, FIRST_SEED + episodes) for row in play(env, policy, seed, rng)]
    env.close()
    found = figures(rows, predict(engine, rows))
    for kind, row in found.items():
        print(kind, row)
    seeds = {"first": FIRST_SEED, "episodes": episodes, "starts": list(STARTS)}
    write_json(RESULT, {"task": TASK, "seeds": seeds, "chunk": CHUNK, "chunks": found, **provenance()})


if __name__ == "__main__":
    main()
