"""LeRobot's tests of policies, on `emu_agent`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tests.policies.test_policies as upstream
from lerobot.utils.collate import lerobot_collate_fn
from tests.policies.test_policies import dummy_dataset_metadata  # noqa: F401 - a fixture

CAMERA = "observation.images.laptop"
TASK = "lift the red cube off the table"
NAME = "emu_agent"


@pytest.fixture
def laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    """LeRobot's tests have one camera and six joints: the policy is told so, and begins with a new head."""
    make = partial(upstream.make_policy_config, NAME, camera_key=CAMERA, wrist_key=CAMERA, new_head=True)
    monkeypatch.setattr(upstream, "make_policy_config", lambda _: make())


@pytest.fixture
def lift_dataset(tmp_path: Path) -> Path:
    """One episode of noise with the features of the bundled checkpoint."""
    from emu_agent.data.demonstration import Demonstration
    from emu_agent.data.lerobot_writer import write_dataset

    rng, length = np.random.default_rng(0), 12
    pictures = {
        c: rng.integers(256, size=(length, 128, 128, 3), dtype=np.uint8) for c in ("agentview", "wrist")
    }
    actions = rng.uniform(-1, 1, (length, 7)).astype(np.float32)
    demonstration = Demonstration.of_outcome(
        task="lift", embodiment="panda", seed=0, success=True, instruction=TASK,
        steps=("reach the cube",) * length, images=pictures,
        proprio=rng.normal(size=(length, 16)).astype(np.float32), actions=actions, executed=actions,
    )  # fmt: skip
    root = tmp_path / "lift"
    write_dataset([demonstration], root, fps=20, fingerprint={}, collection={})
    return root


def test_classes() -> None:
    upstream.test_get_policy_and_config_classes(NAME)


def test_defaults(laptop: None, dummy_dataset_metadata: Any) -> None:  # noqa: F811
    upstream.test_policy_defaults(dummy_dataset_metadata, NAME)


def test_save_and_load(laptop: None, dummy_dataset_metadata: Any, tmp_path: Path) -> None:  # noqa: F811
    upstream.test_save_and_load_pretrained(dummy_dataset_metadata, tmp_path, NAME)


def test_save_a_gathered_state(
    laptop: None,
    dummy_dataset_metadata: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy_class = upstream.get_policy_class(NAME)
    monkeypatch.setattr(upstream, "get_policy_class", lambda _: policy_class)  # the test names another one
    upstream.test_save_pretrained_with_state_dict(dummy_dataset_metadata, tmp_path)


def test_train_and_act(bare: Callable[..., Any], lift_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "DatasetConfig", partial(upstream.DatasetConfig, root=str(lift_dataset)))
    # Language rows do not go through torch's own collation; lerobot-train uses this one.
    loader = partial(upstream.torch.utils.data.DataLoader, collate_fn=lerobot_collate_fn)
    monkeypatch.setattr(upstream.torch.utils.data, "DataLoader", loader)
    # Noise has not the checkpoint's units, which a head that is not new would refuse.
    bare(upstream.test_policy)("local/lift", "emu_robosuite", {}, NAME, {"new_head": True})
