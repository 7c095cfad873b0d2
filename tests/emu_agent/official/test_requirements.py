"""The doctor on folders of weights, whole and with planted faults."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from emu_agent.cli import main
from emu_agent.official.requirements import cache_bytes, examine_weights, memory_of
from emu_agent.world_model.config import PRESETS
from emu_agent.world_model.shards import StoredTensor
from emu_agent.world_model.transformer import WorldModel


@pytest.fixture
def official(reference: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "alone" / "official"
    shutil.copytree(reference / "lm", folder)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


def states(folder: Path) -> dict[str, tuple[str, str]]:
    return {finding.name: (finding.state, finding.found) for finding in examine_weights(folder)}


@pytest.mark.slow
def test_what_the_published_model_needs() -> None:
    with torch.device("meta"):
        model = WorldModel(PRESETS["emu3_5"])
    tensors = {
        key: StoredTensor(Path("x"), key, tuple(tensor.shape), "BF16")
        for key, tensor in model.state_dict().items()
    }
    sizes = memory_of(tensors)
    assert sizes["float32"] == 2 * sizes["bfloat16"] == 2 * 68_206_921_728
    assert 0.54 < sizes["int8"] / sizes["bfloat16"] < 0.55
    assert 0.32 < sizes["int4"] / sizes["bfloat16"] < 0.33
    assert cache_bytes(PRESETS["emu3_5"]) == 262_144_000


@pytest.mark.slow
def test_a_whole_folder_is_well(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"weights={reference / 'lm'}", "json=true"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = {entry["name"]: entry["found"] for entry in document["findings"]}
    assert document["healthy"]
    assert (
        found["language model"]
        == "lm: 0.3 M parameters in 36 tensors and 4 files, F32; 3 layers, 512 positions"
    )
    assert "1120064 bytes of tensors, as in the index" in found["index"]
    assert found["image tokenizer"].startswith("ibq: 0.8 M parameters, 512 codes, one per 4x4 pixels")
    assert found["text tokenizer"] == "tokenizer: 151643 text ids, 282926 in all"


def test_every_broken_file_is_named(official: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (official / "model-00001-of-00004.safetensors").unlink()
    second = official / "model-00002-of-00004.safetensors"
    second.write_bytes(second.read_bytes()[:-10])
    found = states(official)
    assert found["model-00001-of-00004.safetensors"] == ("fail", "it is missing, but the index names it")
    assert found["model-00002-of-00004.safetensors"][0] == "fail"
    assert "cut off" in found["model-00002-of-00004.safetensors"][1]
    assert main(["doctor", f"weights={official}"]) == 1
    assert "mend first: model-00001" in capsys.readouterr().out


def test_other_tensors_and_sizes_are_told(official: Path) -> None:
    last = official / "model-00004-of-00004.safetensors"
    index = official / "model.safetensors.index.json"
    whole = json.loads(index.read_text())
    index.write_text(json.dumps(whole | {"metadata": {"total_size": 7}}))
    assert states(official)["index"] == ("note", "1120064 bytes of tensors, not 7")
    index.write_text(json.dumps(whole))
    save_file(load_file(last) | {"model.extra": torch.zeros(3)}, last)
    state, found = states(official)["language model"]
    assert state == "fail"
    assert "1 are unknown ['model.extra']" in found
    index.write_text("{")
    assert states(official)["model.safetensors.index.json"][0] == "fail"


def test_a_folder_of_something_else_is_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    assert states(root)["language model"] == ("fail", "no config.json of one")
    assert states(root)["image tokenizer"] == ("note", "no config.yaml here, inside or beside")
    assert states(tmp_path / "nowhere")["weights"][0] == "fail"
    (root / "inner" / "config.yaml").write_text("ddconfig: {ch: 30}")
    assert states(root)["image tokenizer"][0] == "fail"
    for name in ("first", "second"):
        (root / name).mkdir()
        (root / name / "config.json").write_text('{"model_type": "Emu3"}')
    assert "has several language models, ['first', 'second']; name one" in states(root)["weights"][1]
