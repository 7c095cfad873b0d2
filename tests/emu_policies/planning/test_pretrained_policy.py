"""The policy on a real imagination engine, untrained and tiny, read from a checkpoint folder."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from emu_policies import ImaginationPolicy

from emu_agent.errors import CheckpointError, ConfigError, UnknownNameError


@pytest.fixture(scope="module")
def checkpoint(tiny_agent: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agent") / "checkpoint"
    policy = {"n_action_steps": 2, "max_age": 8}
    return tiny_agent.write_agent(folder, fingerprint={"env": "toy"}, policy=policy)


def test_policy_acts_and_imagines_with_the_engine_of_its_checkpoint(
    checkpoint: Path, tiny_agent: ModuleType
) -> None:
    policy = ImaginationPolicy.from_pretrained(checkpoint, imagine="always")
    assert policy.fingerprint == {"env": "toy"}
    assert (policy.config.n_action_steps, policy.config.max_age) == (2, 8)

    def actions(seed: int) -> torch.Tensor:
        policy.reset(seed)
        return torch.stack([policy.select_action(tiny_agent.observation(2)) for _ in range(3)])

    first = actions(1)
    assert first.shape == (3, 2, 3)
    assert torch.equal(first, actions(1))
    assert policy.imagination.features.shape == (2, 1, 5, 24)
    assert policy.imagination.pixels(policy.image_tokenizer).shape == (2, 1, 1, 32, 32, 3)


def test_bad_choices_are_refused_before_anything_is_loaded(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"sometimes.*adaptive, always, image, never, oracle, text, wrong"
    ):
        ImaginationPolicy.from_pretrained(checkpoint, imagine="sometimes")
    with pytest.raises(ConfigError, match=r"horizon.*max_age"):
        ImaginationPolicy.from_pretrained(checkpoint, horizon=3)
    with pytest.raises(CheckpointError, match="nowhere"):
        ImaginationPolicy.from_pretrained(tmp_path / "nowhere")
