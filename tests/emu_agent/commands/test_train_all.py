"""All stages on a dataset that others have made: one wide camera, degrees, two tasks, no fingerprint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from emu_policies import ImaginationPolicy
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from emu_agent.commands import train
from emu_agent.config import load_config
from emu_agent.errors import ConfigError
from emu_agent.observation import Observation
from emu_agent.world_model.checkpoint import read_config

JOINTS = [f"joint_{i}" for i in range(6)]
TASKS = ("put the block in the cup", "fold the towel")
LENGTH = 12


def record(root: Path) -> Path:
    """Four episodes in which a bright block goes across the image, one task after the other."""
    vector = {"dtype": "float32", "shape": (6,), "names": JOINTS}
    image = {"dtype": "image", "shape": (240, 320, 3), "names": ["height", "width", "channels"]}
    features = {"observation.images.top": image, "observation.state": vector, "action": vector}
    dataset = LeRobotDataset.create(
        "someone/else", fps=15, root=root, features=features, robot_type="my_arm", use_videos=False
    )
    for episode in range(4):
        for t in range(LENGTH):
            pixels = np.full((240, 320, 3), 60 + 20 * episode, np.uint8)
            pixels[100:140, 20 * t : 20 * t + 40] = 220
            joints = np.linspace(-90, 90, 6, dtype=np.float32) + 3.0 * t
            dataset.add_frame({
                "observation.images.top": pixels, "observation.state": joints, "action": joints + 3.0,
                "task": TASKS[episode // 2],
            })  # fmt: skip
        dataset.save_episode()
    dataset.finalize()
    return root


def test_a_training_needs_a_dataset() -> None:
    with pytest.raises(ConfigError, match="say dataset=PATH"):
        train.main(load_config("train"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_command_makes_an_agent_of_foreign_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = record(tmp_path / "data" / "towels")
    cfg = load_config("train", [f"dataset={dataset}", "experiment=debug", "threads=1"])
    cfg.experiment.image_size = None
    cfg.stage.tokenizer.make.image_size = None  # so that the dataset's proportions decide
    assert train.main(cfg) == 0
    told = capsys.readouterr().out
    assert "[1/4] tokenizer, then world_model, dida, head; about" in told
    folder = tmp_path / "runs" / "towels" / "checkpoint"
    meta = read_config(folder)
    assert (meta["camera"], meta["image_size"]) == ("top", [32, 32])
    assert sorted(meta["parts"]) == ["head.my_arm", "image_tokenizer", "world_model"]
    assert meta["parts"]["head.my_arm"]["cameras"] == []
    assert len(meta["action_bins"]["my_arm"]["low"]) == 6
    assert meta["fingerprint"] == {"embodiment": "my_arm", "control_hz": 15}

    policy = ImaginationPolicy.from_pretrained(folder, imagine="always")
    images = {"top": torch.full((1, 240, 320, 3), 80, dtype=torch.uint8)}
    action = policy.select_action(Observation(images, torch.zeros(1, 6), (TASKS[1],)))
    assert action.shape == (1, 6)
    assert action.abs().max() > 1.0  # degrees

    before = (tmp_path / "runs" / "towels" / "head" / "result.json").stat().st_mtime_ns
    (tmp_path / "runs" / "towels" / "head" / "result.json").unlink()
    assert train.main(cfg) == 0  # only the head is taken up again
    assert (tmp_path / "runs" / "towels" / "head" / "result.json").stat().st_mtime_ns > before
    figures = json.loads((tmp_path / "runs" / "towels" / "head" / "result.json").read_text())["validation"]
    assert np.isfinite(figures["chunk_error_imagined"])
