import copy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.world_model.adapter import LoraSettings, add_adapter, fold_adapter, merged_weight, save_adapter
from emu_agent.world_model.config import preset
from emu_agent.world_model.transformer import WorldModel

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.slow
IDS = torch.arange(20)[None] % 60
TOKENS = (50, 51)


@pytest.fixture(scope="module")
def base() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(preset("debug", vocab_size=60, initializer_range=0.1)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def trained(base: WorldModel) -> WorldModel:
    model = copy.deepcopy(base)
    add_adapter(model, LoraSettings(r=4), TOKENS)
    torch.testing.assert_close(model(IDS), base(IDS))
    ids = torch.randint(60, (2, 20), generator=torch.Generator().manual_seed(1))
    ids[0, 3], ids[1, 5] = TOKENS
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(3):
        F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.requires_grad_(False)


@pytest.fixture
def stored(trained: WorldModel, tmp_path: Path) -> Path:
    save_adapter(trained, tmp_path / "adapter", "base")
    return tmp_path / "adapter"


def test_folded_and_read_by_peft_it_computes_the_same(
    base: WorldModel, trained: WorldModel, stored: Path
) -> None:
    assert sorted(path.name for path in stored.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    folded = copy.deepcopy(base)
    fold_adapter(folded, stored)
    assert folded.state_dict().keys() == base.state_dict().keys()
    wanted = trained(IDS)
    assert not torch.allclose(wanted, base(IDS), atol=1e-3)
    torch.testing.assert_close(folded(IDS), wanted)
    other = peft.PeftModel.from_pretrained(copy.deepcopy(base), str(stored))
    torch.testing.assert_close(other(IDS), wanted)


def test_only_the_given_embeddings_change(base: WorldModel, trained: WorldModel) -> None:
    name = "model.embed_tokens.weight"
    changed = (merged_weight(trained, name) != base.state_dict()[name]).any(dim=1).nonzero().flatten()
    assert changed.tolist() == list(TOKENS)
    kept = [
        key for key in base.state_dict() if torch.equal(merged_weight(trained, key), base.state_dict()[key])
    ]
    assert set(kept) == {key for key in base.state_dict() if "norm" in key or key == "lm_head.weight"}


def test_adapters_of_another_model_are_refused(base: WorldModel, stored: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not fit the model"):
        fold_adapter(WorldModel(preset("debug", vocab_size=60, hidden_size=32)), stored)
    with pytest.raises(CheckpointError, match="14 tensors are missing"):
        fold_adapter(WorldModel(preset("debug", vocab_size=60, num_hidden_layers=3)), stored)
    with torch.device("meta"):
        elsewhere = WorldModel(base.config)
    with pytest.raises(ConfigError, match="without quantize or device_map"):
        fold_adapter(elsewhere, stored)
    (stored / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks adapter_model\.safetensors"):
        fold_adapter(copy.deepcopy(base), stored)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no settings \['rank'\]; it has \['r', 'alpha'"):
        LoraSettings.from_dict({"rank": 4})
    for wrong in ({"r": 0}, {"targets": []}, {"targets": ["lm_head"]}):
        with pytest.raises(ConfigError, match="must be at least 1, targets some of"):
            LoraSettings.from_dict(wrong)
    assert LoraSettings.from_dict({"targets": ["q_proj"]}).to_dict()["targets"] == ("q_proj",)
