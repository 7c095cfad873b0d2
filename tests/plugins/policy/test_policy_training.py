"""lerobot-train on a tiny dataset: losses of all phases, and the real command from start to resume."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MakeConfig = Callable[..., Any]
PARTS = {
    "world": {"world_model"},
    "dida": {"world_model"},
    "action": {"head"},
    "joint": {"world_model", "head"},
}
TERMS = {
    "world": {"imagine_visual", "text"},
    "dida": {"imagine_visual", "text", "dida"},
    "action": {"action_loss", "monitor_loss", "monitor_accuracy"},
    "joint": {"imagine_visual", "text", "dida", "action_loss", "monitor_loss", "monitor_accuracy"},
}


@pytest.fixture(scope="module")
def dataset(tiny_data: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data.record(tmp_path_factory.mktemp("data") / "cells", episodes=4)


@pytest.fixture(scope="module")
def loaded(dataset: Path) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    times = {"action": [step / 20 for step in range(4)]}
    return LeRobotDataset("local/cells", root=dataset, delta_timestamps=times)


def learner(make_config: MakeConfig, loaded: Any, **settings: Any) -> Any:
    """A policy in training, with a head for the dataset."""
    from lerobot.policies.factory import make_policy

    return make_policy(make_config(new_head=True, **settings), ds_meta=loaded.meta).train()


def one_batch(loaded: Any, size: int = 8) -> dict[str, Any]:
    """As lerobot-train makes it."""
    from lerobot.utils.collate import lerobot_collate_fn

    chosen = np.linspace(0, len(loaded) - 1, size).astype(int)
    batch = lerobot_collate_fn([loaded[int(i)] for i in chosen])
    assert batch is not None
    return batch


@pytest.mark.parametrize("phase", sorted(PARTS))
def test_a_phase_trains_its_parts_by_its_losses(make_config: MakeConfig, loaded: Any, phase: str) -> None:
    policy, batch = learner(make_config, loaded, phase=phase), one_batch(loaded)
    trained = {name.split(".")[0] for name, p in policy.named_parameters() if p.requires_grad}
    assert trained == PARTS[phase]
    assert {name for name, part in policy.named_children() if part.training} == PARTS[phase]
    torch.manual_seed(3)
    loss, terms = policy.forward(batch)
    assert set(terms) == TERMS[phase]
    assert all(type(value) is float for value in terms.values())
    loss.backward()
    touched = {name.split(".")[0] for name, p in policy.named_parameters() if p.grad is not None}
    assert touched == PARTS[phase]


def test_the_terms_are_weighed_as_the_config_says(make_config: MakeConfig, loaded: Any) -> None:
    def loss(**weights: float) -> float:
        policy = learner(make_config, loaded, phase="joint", **weights).eval()
        torch.manual_seed(3)
        return policy.forward(one_batch(loaded))[0].item()

    torch.manual_seed(0)
    none = {"world_weight": 0.0, "dida_weight": 0.0, "action_weight": 0.0}
    assert loss(**none) == 0.0
    with torch.random.fork_rng():
        alone = [loss(**{**none, name: 1.0}) for name in ("world_weight", "dida_weight")]
        both = loss(**{**none, "world_weight": 2.0, "dida_weight": 3.0})
    assert both == pytest.approx(2.0 * alone[0] + 3.0 * alone[1], rel=1e-4)


def test_steps_are_looked_up_by_episode_and_time(make_config: MakeConfig, loaded: Any) -> None:
    """LeRobot's collation drops the language rows: what is learned must still be the step of each frame."""
    policy, batch = learner(make_config, loaded, phase="world"), one_batch(loaded, 12)
    assert not any("language" in key for key in batch)
    policy.forward(batch)
    recording = policy.lessons._recording
    rows = loaded.hf_dataset.with_format(None)
    for number, index in zip(recording.numbers(batch).tolist(), batch["index"].tolist(), strict=True):
        assert number == index
        texts = [
            r["content"]
            for r in rows[index]["language_persistent"]
            if r["timestamp"] <= rows[index]["timestamp"] + 1e-6
        ]
        plan = recording._plan(number, 1)
        assert plan.steps[0].text == texts[-1]


def test_losses_fall(make_config: MakeConfig, loaded: Any) -> None:
    policy, batch = learner(make_config, loaded, phase="joint"), one_batch(loaded)
    optimizer = torch.optim.Adam(policy.get_optim_params(), lr=5e-3)
    history = []
    for update in range(12):
        torch.manual_seed(update % 3)
        loss, _ = policy.forward(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert np.mean(history[-3:]) < 0.8 * np.mean(history[:3])


def lerobot_train(*arguments: str) -> None:
    code = "from lerobot.scripts.lerobot_train import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_command_trains_tunes_and_resumes(dataset: Path, agent: Path, tmp_path: Path) -> None:
    common = [
        "--dataset.repo_id=local/cells", f"--dataset.root={dataset}", "--batch_size=4", "--num_workers=0",
        "--policy.push_to_hub=false", "--policy.device=cpu", "--log_freq=1", "--env_eval_freq=0",
        "--save_freq=4", "--steps=4",
    ]  # fmt: skip
    lerobot_train(
        "--policy.type=emu_agent", f"--policy.pretrained_agent={agent}", "--policy.new_head=true",
        "--policy.phase=action", f"--output_dir={tmp_path / 'action'}", *common,
    )  # fmt: skip
    first = tmp_path / "action" / "checkpoints" / "last" / "pretrained_model"
    lerobot_train(
        f"--policy.path={first}", "--policy.phase=joint", f"--output_dir={tmp_path / 'joint'}", *common
    )
    second = tmp_path / "joint" / "checkpoints" / "last" / "pretrained_model"
    lerobot_train(f"--config_path={second / 'train_config.json'}", "--resume=true", "--steps=6")
    state = tmp_path / "joint" / "checkpoints" / "last" / "training_state" / "training_step.json"
    assert json.loads(state.read_text())["step"] == 6
    before, after = (torch_weights(folder) for folder in (first, second))
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"world_model", "head"}


def torch_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
