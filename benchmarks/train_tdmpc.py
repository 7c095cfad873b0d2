"""Train LeRobot's TD-MPC on the training episodes, for `emu-agent score model=tdmpc`.

Run `python benchmarks/train_tdmpc.py`. It sees what our world model sees, one camera and the actions, and
stops after a time: it stands for what a person gets in minutes, not for the best that TD-MPC can do.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.tdmpc.configuration_tdmpc import TDMPCConfig
from lerobot.policies.tdmpc.modeling_tdmpc import TDMPCPolicy
from torch import Tensor
from tqdm import tqdm

from emu_agent.data.columns import IMAGES
from emu_agent.data.frames import Frames, load_frames
from emu_agent.evaluation.adapters.tdmpc import as_input
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json

HORIZON = 8
BATCH = 64


def main() -> None:
    """Train until the time is over, and store policy and losses."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", type=Path, default=Path("data/robosuite_Lift"))
    parser.add_argument("--camera", default="agentview")
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--seconds", type=float, default=180, help="processor time, of all threads")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/tdmpc_lift"))
    parser.add_argument("--record", type=Path, default=Path("benchmarks/results/tdmpc_training.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    frames = load_frames(args.dataset, [args.camera])
    episodes, _ = frames.split(args.held_out)
    small = as_input(frames.images[args.camera], args.side)
    policy = TDMPCPolicy(config_of(args.camera, args.side, frames.executed.shape[1]))
    losses = train(policy, small, frames, episodes, args.seconds)
    policy.save_pretrained(str(args.output))
    every = max(1, len(losses) // 20)
    means = [float(np.mean(losses[i : i + every])) for i in range(0, len(losses), every)]
    write_json(
        args.record,
        {
            "updates": len(losses),
            "batch_size": BATCH,
            "seconds": args.seconds,
            "consistency_loss": means,
            **provenance(),
        },
    )
    print(f"{len(losses)} updates, consistency loss {means[0]:.4f} to {means[-1]:.4f}: {args.output}")


def config_of(camera: str, side: int, action_dim: int) -> TDMPCConfig:
    """Its own settings, but for the horizon, and a latent state that is worth something at its end."""
    return TDMPCConfig(
        input_features={IMAGES + camera: PolicyFeature(type=FeatureType.VISUAL, shape=(3, side, side))},
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(action_dim,))},
        horizon=HORIZON,
        n_action_repeats=1,
        temporal_decay_coeff=0.9,
        device="cpu",
        push_to_hub=False,
    )


def train(
    policy: TDMPCPolicy, small: Tensor, frames: Frames, episodes: Sequence[int], seconds: float
) -> list[float]:
    """Update by its own loss; the reward is 1 in the last frame of an episode, where the task is solved."""
    spans = [frames.span(episode) for episode in episodes]
    starts = np.concatenate([np.arange(span.start, span.stop - HORIZON) for span in spans])
    reward = torch.zeros(len(small))
    reward[[span.stop - 1 for span in spans]] = 1
    actions = torch.from_numpy(frames.executed.clip(-1, 1))
    optimizer = torch.optim.Adam(policy.parameters(), lr=policy.config.optimizer_lr)
    generator = torch.Generator().manual_seed(0)
    key, losses, end = next(iter(policy.config.image_features)), [], time.process_time() + seconds
    with tqdm(desc="training TD-MPC", unit="update") as bar:
        while time.process_time() < end:
            begin = torch.from_numpy(starts[torch.randint(len(starts), (BATCH,), generator=generator)])
            rows = begin[:, None] + torch.arange(HORIZON + 1)
            batch = {
                key: small[rows],
                "action": actions[rows[:, :-1]],
                "next.reward": reward[rows[:, 1:]],
                "index": begin,
                "observation.state_is_pad": torch.zeros(rows.shape, dtype=torch.bool),
                "action_is_pad": torch.zeros(BATCH, HORIZON, dtype=torch.bool),
                "next.reward_is_pad": torch.zeros(BATCH, HORIZON, dtype=torch.bool),
            }
            loss, info = policy.forward(batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
            optimizer.step()
            policy.update()
            losses.append(info["consistency_loss"])
            bar.set_postfix(consistency=f"{losses[-1]:.4f}", refresh=False)
            bar.update()
    return losses


if __name__ == "__main__":
    main()
