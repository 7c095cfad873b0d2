"""Where parameters go: on the CPU and on disk for real; other GPUs cannot be had here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emu_agent.errors import ConfigError
from emu_agent.world_model.checkpoint import load_world_model
from emu_agent.world_model.config import TransformerConfig, preset
from emu_agent.world_model.fast import FastModel
from emu_agent.world_model.placement import Placement, plan
from emu_agent.world_model.shards import write_shards
from emu_agent.world_model.transformer import WorldModel

CONFIG = preset(
    "debug", vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=4, initializer_range=0.1
)
IDS = torch.arange(12)[None]


def write_official(folder: Path, config: TransformerConfig = CONFIG, max_bytes: int = 300_000) -> WorldModel:
    """A random model in the published layout: config.json, shards, index."""
    torch.manual_seed(0)
    model = WorldModel(config).eval().requires_grad_(False)
    folder.mkdir()
    write_shards(folder, model.state_dict().items(), max_bytes)
    (folder / "config.json").write_text(json.dumps({"model_type": "Emu3", **config.to_dict()}))
    return model


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, WorldModel]:
    folder = tmp_path_factory.mktemp("weights") / "official"
    return folder, write_official(folder)


def size_of(model: WorldModel) -> int:
    """Bytes that the layers hold."""
    held = 0
    for parameter in model.model.layers.parameters():
        names = getattr(parameter, "tensor_data_names", None)
        parts = [getattr(parameter, name) for name in names] if names else [parameter]
        held += sum(part.numel() * part.element_size() for part in parts)
    return held


@pytest.mark.slow
def test_layers_on_disk_compute_the_same(written: tuple[Path, WorldModel]) -> None:
    folder, model = written
    places = {"": "cpu", "model.layers.1": "disk", "model.layers.2": "disk"}
    spread = load_world_model(folder, device_map=places)
    assert [spread.model.layers[i].mlp.up_proj.weight.device.type for i in range(4)] == [
        "cpu",
        "meta",
        "meta",
        "cpu",
    ]
    torch.testing.assert_close(spread(IDS), model(IDS), atol=0, rtol=0)
    cache, hidden = spread.prefill(IDS)
    with torch.no_grad():
        after = spread.hidden_states(IDS[:, :1], cache)
    whole = model.hidden_states(torch.cat([IDS, IDS[:, :1]], dim=1))
    torch.testing.assert_close(torch.cat([hidden, after], dim=1), whole, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_automatic_placement_fills_memory_and_leaves_the_rest_on_disk(
    written: tuple[Path, WorldModel],
) -> None:
    folder, model = written
    layer = size_of(model) // 4
    ends = 4 * (2 * 96 * 64 + 64)
    spread = load_world_model(folder, device_map="auto", max_memory={"cpu": ends + 3 * layer + 1000})
    homes = [block.mlp.up_proj.weight.device.type for block in spread.model.layers]
    assert homes[0] == "cpu"
    assert homes[-1] == "meta"
    torch.testing.assert_close(spread(IDS), model(IDS), atol=0, rtol=0)
    with pytest.raises(ConfigError, match="embedding and head alone need 49408"):
        load_world_model(folder, device_map="auto", max_memory={"cpu": 40_000})


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "share", "error"), [("int8", 0.3, 0.03), ("int4", 0.25, 0.4)])
def test_few_bits_take_little_memory_and_say_nearly_the_same(
    written: tuple[Path, WorldModel], kind: str, share: float, error: float
) -> None:
    folder, model = written
    small = load_world_model(folder, quantize=kind)
    assert size_of(small) < share * size_of(model)
    wanted, found = model(IDS), small(IDS)
    assert 0 < (found - wanted).std() < error * wanted.std()
    with pytest.raises(ConfigError, match="needs plain weights on one device"):
        FastModel(small)
    _, hidden = small.prefill(IDS)
    torch.testing.assert_close(small.logits(hidden), found, atol=1e-4, rtol=0)
    assert small.logits(hidden, range(10, 20)).shape == (1, 12, 10)


def test_unwise_placements_are_refused(written: tuple[Path, WorldModel]) -> None:
    _, model = written
    refused = [
        ({"device": "cuda:9"}, "has [0-9]+ CUDA GPUs; use device=cpu"),
        ({"device": "cuba"}, "no device; there are cpu and cuda"),
        ({"dtype": torch.int8}, "must be floating; for fewer bits"),
        ({"quantize": "int3"}, "quantize='int3' must be null or one of"),
        ({"max_memory": {"cpu": "1GiB"}}, "give device_map=auto too"),
        ({"device_map": "balanced"}, "must be one of .'auto'. or a mapping"),
        ({"device_map": {"model.layers": "cpu"}}, "says nothing of model.embed_tokens"),
        ({"device_map": {"": "cpu", "lm_head": "disk"}}, "lm_head must be on cpu, where ids come in"),
        ({"device_map": {"": "cpu", "model.layers.3": "disk"}, "quantize": "int8"}, "1 of 4 would be moved"),
    ]
    for options, message in refused:
        with pytest.raises(ConfigError, match=message):
            plan(model, **options)


@pytest.mark.slow
def test_four_bits_need_widths_that_a_group_divides(tmp_path: Path) -> None:
    narrow = tmp_path / "narrow"
    write_official(narrow, preset("debug", vocab_size=96))
    with pytest.raises(ConfigError, match=r"widths that 32 divides, but model\.layers\.0\.\S+ has 48"):
        load_world_model(narrow, quantize="int4")


def test_a_gpu_wants_bfloat16_for_four_bits() -> None:
    with pytest.raises(ConfigError, match=r"needs dtype=bfloat16, not torch\.float32"):
        Placement(main=torch.device("cuda", 0), layers=("cuda:0",), dtype=torch.float32, quantize="int4")


def test_default_types(written: tuple[Path, WorldModel]) -> None:
    _, model = written
    assert plan(model).dtype == torch.float32
    assert plan(model, device="meta").dtype == torch.bfloat16


PEAK = """
import sys, torch
from pathlib import Path
from emu_agent.world_model.checkpoint import load_world_model

def status(name):
    rows = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
    return int(rows[name].split()[0]) * 1024

folder, warm_up, dtype, quantize = sys.argv[1:5]
quantize = None if quantize == "none" else quantize
load_world_model(warm_up, getattr(torch, dtype), quantize=quantize)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
model = load_world_model(folder, getattr(torch, dtype), quantize=quantize)
print(status("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """About 300 MB in one file, which is harder than in shards, and the number of parameters."""
    config = preset(
        "debug", vocab_size=2048, hidden_size=512, intermediate_size=1024, num_hidden_layers=34,
        num_attention_heads=8, head_dim=64,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("heavy") / "official"
    model = write_official(folder, config, max_bytes=10**9)
    return folder, sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of memory")
@pytest.mark.parametrize(
    ("dtype", "quantize", "bytes_each"),
    [("float32", "none", 4.0), ("bfloat16", "none", 2.0), ("float32", "int8", 1.01)],
)
def test_the_peak_of_memory_is_hardly_more_than_what_stays(
    heavy: tuple[Path, int], written: tuple[Path, WorldModel], dtype: str, quantize: str, bytes_each: float
) -> None:
    folder, numel = heavy
    command = [sys.executable, "-c", PEAK, folder, written[0], dtype, quantize]
    # Matrices of the published size are above any threshold of the allocator: freed, they are gone at once.
    allocator = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=allocator)
    ends = 2 * 2048 * 512
    stays = (numel - ends) * bytes_each + ends * 4 if quantize == "int8" else numel * bytes_each
    assert 0.9 * stays < int(done.stdout) < 1.2 * stays
