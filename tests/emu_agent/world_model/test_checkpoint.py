import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from emu_agent.errors import CheckpointError
from emu_agent.world_model.checkpoint import (
    load_state,
    load_world_model,
    read_config,
    read_part,
    write_checkpoint,
)
from emu_agent.world_model.config import preset
from emu_agent.world_model.transformer import WorldModel

CONFIG = preset("debug", vocab_size=40)
IDS = torch.arange(12)[None]


@pytest.fixture
def model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(CONFIG).eval().requires_grad_(False)


def write(folder: Path, model: WorldModel, **options: object) -> Path:
    tensors = {f"world_model.{key}": tensor for key, tensor in model.state_dict().items()}
    tensors["head.steps"] = torch.tensor([7])
    parts = {"world_model": model.config.to_dict(), "head": {"chunk": 10}}
    return write_checkpoint(folder, {"parts": parts, "note": "x"}, tensors, **options)


@pytest.fixture
def official(reference: Path, tmp_path: Path) -> Path:
    """A writable copy of a folder in the published layout, sharded."""
    folder = tmp_path / "official"
    shutil.copytree(reference / "lm", folder)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_written_is_read(tmp_path: Path, model: WorldModel) -> None:
    folder = write(tmp_path / "agent", model, files={"tokenizer.json": b"{}"})
    torch.testing.assert_close(load_world_model(folder)(IDS), model(IDS), atol=0, rtol=0)
    config, tensors = read_part(folder, "head")
    assert config == {"chunk": 10}
    assert tensors["steps"].dtype == torch.int64
    assert tensors["steps"].tolist() == [7]
    assert read_config(folder)["note"] == "x"
    assert (folder / "tokenizer.json").read_bytes() == b"{}"
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]


def test_half_precision_on_disk_is_single_in_memory(tmp_path: Path, model: WorldModel) -> None:
    single, half = (write(tmp_path / str(t), model, dtype=t) for t in (torch.float32, torch.float16))
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (single, half)]
    assert sizes[1] < 0.6 * sizes[0]
    _, tensors = read_part(half, "world_model")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    torch.testing.assert_close(load_world_model(half)(IDS), model(IDS), atol=1e-2, rtol=0)


def test_bfloat16_in_memory(official: Path) -> None:
    model = load_world_model(official, dtype=torch.bfloat16)
    cache, hidden = model.prefill(IDS)
    assert cache.keys[0].dtype == hidden.dtype == torch.bfloat16
    with torch.no_grad():
        assert model.hidden_states(IDS[:, :1], cache).dtype == torch.bfloat16


def test_foreign_files_of_the_folder_survive(tmp_path: Path, model: WorldModel) -> None:
    folder = write(tmp_path / "agent", model, files={"statistics.json": b"old"})
    (folder / "videos").mkdir()
    (folder / "videos" / "first.mp4").write_bytes(b"film")
    write(folder, model, files={"statistics.json": b"new"})
    assert (folder / "videos" / "first.mp4").read_bytes() == b"film"
    assert (folder / "statistics.json").read_bytes() == b"new"


KILLED = """
import os, pathlib, sys, torch
from emu_agent.world_model.checkpoint import write_checkpoint

renames, replace = int(sys.argv[2]), pathlib.Path.replace

def dying(self, target):
    global renames
    if renames == 0:
        os._exit(9)
    renames -= 1
    return replace(self, target)

pathlib.Path.replace = dying
write_checkpoint(sys.argv[1], {"parts": {"head": {"version": 2}}}, {"head.x": torch.tensor([2.0])})
"""


@pytest.mark.slow
@pytest.mark.parametrize(("renames", "version"), [(0, 1), (1, 1), (2, 2)])
def test_a_kill_leaves_one_whole_checkpoint(tmp_path: Path, renames: int, version: int) -> None:
    folder = tmp_path / "agent"
    old = {"parts": {"head": {"version": 1}}}, {"head.x": torch.tensor([1.0])}
    write_checkpoint(folder, *old, {"notes.txt": b"mine"})
    done = subprocess.run([sys.executable, "-c", KILLED, folder, str(renames)], check=False)
    assert done.returncode == 9
    config, tensors = read_part(folder, "head")
    assert config["version"] == tensors["x"].item() == version
    write_checkpoint(folder, *old)
    assert read_part(folder, "head")[0]["version"] == 1
    assert (folder / "notes.txt").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]


@pytest.mark.parametrize("name", ["model-00002-of-00004.safetensors", "model-00004-of-00004.safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.999])
def test_truncated_file_is_named(official: Path, name: str, keep: float) -> None:
    content = (official / name).read_bytes()
    (official / name).write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=f"{name} is cut off"):
        load_world_model(official)


def test_missing_shard_is_named(official: Path) -> None:
    (official / "model-00003-of-00004.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00003-of-00004\.safetensors"):
        load_world_model(official)


def test_an_index_that_names_absent_tensors_is_refused(official: Path) -> None:
    index = official / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    name = "model-00001-of-00004.safetensors"
    for key in ("model.layers.9.mlp.up_proj.weight", "model.norm.weight"):
        assert weight_map.get(key) != name
        edit_json(index, weight_map=weight_map | {key: name})
        with pytest.raises(CheckpointError, match=rf"index\.json says that {key} is in {name}, but"):
            load_world_model(official)
    edit_json(index, weight_map=weight_map | {"model.norm.weight": "../elsewhere.safetensors"})
    with pytest.raises(CheckpointError, match="it must lie in the same folder"):
        load_world_model(official)
    edit_json(index, weight_map=None)
    with pytest.raises(CheckpointError, match="lacks weight_map"):
        load_world_model(official)


def test_whole_numbers_where_weights_should_be_are_refused(official: Path) -> None:
    path = official / "model-00004-of-00004.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name].to(torch.int8)}, path)
    with pytest.raises(CheckpointError, match=rf"{name} in .*{path.name} has type I8; it must be one of"):
        load_world_model(official)


def test_missing_folder_and_missing_config_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        load_world_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_world_model(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_config_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_world_model(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"hidden_act": "gelu"}, {"rope_scaling": {"type": "linear"}}, {"head_dim": 7}]
)
def test_a_config_of_another_network_is_refused(official: Path, changes: dict[str, object]) -> None:
    edit_json(official / "config.json", **changes)
    with pytest.raises(CheckpointError, match=rf"config\.json: {next(iter(changes))}="):
        load_world_model(official)


def test_foreign_config_is_refused_with_both_values(official: Path) -> None:
    edit_json(official / "config.json", model_type="llama")
    with pytest.raises(CheckpointError, match=r"model_type='llama'.*Emu3"):
        load_world_model(official)
    with pytest.raises(CheckpointError, match=r"format=None; it must be 'emu-agent'"):
        read_part(official, "world_model")


def test_later_format_is_refused_with_both_versions(tmp_path: Path, model: WorldModel) -> None:
    folder = write(tmp_path / "agent", model)
    edit_json(folder / "config.json", format_version=2)
    with pytest.raises(CheckpointError, match="format_version=2; this version of emu-agent reads 1"):
        load_world_model(folder)


def test_wrong_shape_names_both_shapes(official: Path) -> None:
    edit_json(official / "config.json", intermediate_size=128)
    with pytest.raises(
        CheckpointError, match=r"\(160, 64\) in .*of-00004\.safetensors; .* asks for \(128, 64\)"
    ):
        load_world_model(official)


def test_wrong_number_of_layers_names_the_tensors(official: Path) -> None:
    edit_json(official / "config.json", num_hidden_layers=4)
    with pytest.raises(CheckpointError, match=r"11 tensors are missing \['model\.layers\.3\."):
        load_world_model(official)


def test_wrong_vocabulary_names_both_sizes(official: Path) -> None:
    with pytest.raises(CheckpointError, match=r"vocabulary has 282926 ids.* vocab_size=1031"):
        load_world_model(official, vocab_size=282_926)
    assert load_world_model(official, vocab_size=1031).config.vocab_size == 1031


def test_unknown_part_lists_the_parts(tmp_path: Path, model: WorldModel) -> None:
    folder = write(tmp_path / "agent", model)
    with pytest.raises(CheckpointError, match=r"no part 'planner'; it has \['head', 'world_model'\]"):
        read_part(folder, "planner")


def test_tensor_without_a_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"\['stray\.x'\] belong to no part"):
        write_checkpoint(tmp_path / "agent", {"parts": {"head": {}}}, {"stray.x": torch.zeros(1)})


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_number_the_file_cannot_hold_is_refused(tmp_path: Path, value: float) -> None:
    tensors = {"head.x": torch.tensor([value])}
    with pytest.raises(CheckpointError, match=r"head\.x reaches"):
        write_checkpoint(tmp_path / "agent", {"parts": {"head": {}}}, tensors, dtype=torch.float16)
    assert not (tmp_path / "agent").exists()


def test_load_state_names_both_sides(model: WorldModel) -> None:
    state = model.state_dict()
    with pytest.raises(CheckpointError, match=r"1 tensors are missing \['lm_head\.weight'\]"):
        load_state(model, {key: value for key, value in state.items() if key != "lm_head.weight"}, "here")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight has shape \(3, 48\).*\(40, 48\)"):
        load_state(model, state | {"lm_head.weight": torch.zeros(3, 48)}, "here")


def test_old_names_are_read_as_todays(tmp_path: Path) -> None:
    parts = {"trust": {"horizon": 3}, "head": {}}
    tensors = {"trust.hidden.bias": torch.ones(2), "head.context_encoder.step_text.0.weight": torch.ones(1)}
    config = {"parts": parts, "policy": {"trust_threshold": 0.5}, "training": [{"play": None}]}
    folder = write_checkpoint(tmp_path / "old", config, tensors)
    read = read_config(folder)
    assert (read["policy"], read["training"]) == ({"confidence_threshold": 0.5}, [{"perturbed": None}])
    values, stored = read_part(folder, "confidence")
    assert (values, list(stored)) == ({"horizon": 3}, ["hidden.bias"])
    assert list(read_part(folder, "head")[1]) == ["context_encoder.subtask_text.0.weight"]
