"""Do models heed actions? Action sensitivity on counterfactual branches of test seeds.

    emu-agent collect suite=emu/robosuite/Lift purpose=test seed=120000 branches=8 output=data/branches
    python benchmarks/counterfactual.py --branches data/branches --dataset data/robosuite_Lift

`--dataset` holds the demonstrations that `nearest` looks up; without it that row is left out.
"""

import argparse
from pathlib import Path
from typing import Any

import msgspec
import torch

from emu_agent.data.lerobot_folder import LeRobotFolder
from emu_agent.evaluation.adapters.engine import EngineAdapter
from emu_agent.evaluation.adapters.nearest import NearestNeighbour
from emu_agent.evaluation.adapters.persistence import Persistence
from emu_agent.evaluation.adapters.protocol import WorldModelAdapter
from emu_agent.evaluation.branches import (
    Branches,
    BranchImages,
    action_sensitivity,
    negative_controls,
    predicted,
)
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json

RESULT = Path(__file__).parent / "results" / "counterfactual.json"


def main() -> None:
    """Ask every model, and store figures beside those of the negative controls."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--branches", type=Path, required=True)
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--camera", default="agentview")
    parser.add_argument("--checkpoint", help="of the world model; default the bundled one")
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    branches = Branches.read(args.branches, args.camera)
    models: dict[str, WorldModelAdapter] = {"ours": EngineAdapter.from_checkpoint(args.checkpoint)}
    if args.dataset:
        models["nearest"] = NearestNeighbour.from_dataset(str(args.dataset), args.camera, 0.1)
    models["persistence"] = Persistence()
    rows, ours = {}, None
    for name, model in models.items():
        answers = predicted(model, branches)
        ours = answers if ours is None else ours
        rows[name] = row(name, branches, answers)
    assert ours is not None
    controls = {name: row(name, branches, made) for name, made in negative_controls(branches, ours).items()}
    looked_up = None if args.dataset is None else len(LeRobotFolder(args.dataset).episodes)
    about = {
        "seeds": sorted(set(branches.episode.tolist())),
        "each": branches.each,
        "chunk": branches.actions.shape[1],
        "demonstrations_looked_up": looked_up,
    }
    write_json(args.output, {**about, "models": rows, "negative_controls": controls, **provenance()})


def row(name: str, branches: Branches, answers: BranchImages) -> dict[str, Any]:
    """Figures of one candidate, printed as well."""
    found = msgspec.to_builtins(action_sensitivity(branches, answers))
    shown = [f"{key} {found[key]['mean']:6.3f}" for key in ("skill_own", "skill", "correlation")]
    print(f"{name:>16}  {'  '.join(shown)}  found {found['found_share']:.3f}", flush=True)
    return found


if __name__ == "__main__":
    main()
