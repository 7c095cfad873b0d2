"""Fine-tuning a tiny folder in the published layout, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import emu_agent
from emu_agent.cli import main
from emu_agent.data.demonstration import Demonstration
from emu_agent.official.assembly import find_folders, official_engine
from emu_agent.tokens.action import ActionBins
from emu_agent.world_model.adapter import fold_adapter
from emu_agent.world_model.shards import stored_tensors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
OFFICIAL = emu_agent.Vocabulary.official()


def demonstration(seed: int, length: int = 12) -> Demonstration:
    rng = np.random.default_rng(seed)
    return Demonstration.of_outcome(
        task="noise",
        embodiment="none",
        seed=seed,
        success=True,
        instruction="lift the cube",
        steps=("reach for it",) * 6 + ("close the gripper",) * (length - 6),
        images={"front": rng.integers(256, size=(length, 32, 32, 3), dtype=np.uint8)},
        proprio=rng.normal(size=(length, 5)).astype(np.float32),
        actions=rng.uniform(-1, 1, (length, 3)).astype(np.float32),
        executed=rng.uniform(-1, 1, (length, 3)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from emu_agent.data.lerobot_writer import write_dataset

    root = tmp_path_factory.mktemp("data") / "noise"
    write_dataset([demonstration(i) for i in range(2)], root, fps=20, fingerprint={}, collection={})
    return root


def arguments(weights: Path, dataset: Path, output: Path, *more: str) -> list[str]:
    loop = {"updates": 2, "lr": 1e-2, "warmup": 1, "average": 0.5, "validate_every": 2, "save_every": 1}
    return [
        "train", "experiment=lift_official", "stage=world_model", f"weights={weights}", f"output={output}",
        f"experiment.dataset={dataset}", "experiment.camera=front", "experiment.held_out=0.5", "threads=1",
        "experiment.world_model.batch_size=2",
        *(f"experiment.world_model.loop.{key}={value}" for key, value in loop.items()), *more,
    ]  # fmt: skip


def logits(folder: Path) -> torch.Tensor:
    ids = torch.tensor(
        [[OFFICIAL.bos, 40, 41, OFFICIAL.boa, *OFFICIAL.action[:4], OFFICIAL.eoa, OFFICIAL.bss]]
    )
    with torch.no_grad():
        return emu_agent.load_world_model(folder)(ids)


@pytest.mark.parametrize("lora", [False, True])
def test_a_fine_tuned_folder_loads_back_in_the_published_naming(
    official_folder: Path, dataset: Path, tmp_path: Path, lora: bool
) -> None:
    output = tmp_path / "run"
    more = ["lora={r: 2, targets: [o_proj, down_proj]}"] if lora else []
    before = (official_folder / "model.safetensors").read_bytes()
    assert main(arguments(official_folder, dataset, output, *more)) == 0
    made = output / "checkpoint"
    assert (official_folder / "model.safetensors").read_bytes() == before
    theirs, ours = stored_tensors(official_folder), stored_tensors(made)
    assert {k: (t.shape, t.dtype) for k, t in ours.items()} == {
        k: (t.shape, t.dtype) for k, t in theirs.items()
    }
    assert json.loads((made / "config.json").read_text()) == json.loads(
        (official_folder / "config.json").read_text()
    )
    assert not torch.equal(logits(made), logits(official_folder))
    parts = find_folders(made)
    assert (parts.language_model, parts.text_tokenizer) == (made, made)
    images = emu_agent.load_image_tokenizer(parts.image_tokenizer)
    assert images.num_codes == len(OFFICIAL.visual)
    side = json.loads((made / "emu_agent.json").read_text())
    ((embodiment, bins),) = side["action_bins"].items()
    assert bins["num_bins"] == 64
    assert side["training"]["world_model"]["updates"] == 2
    assert official_engine(made).action_bins == {embodiment: ActionBins.from_dict(bins)}
    assert (made / "adapter").is_dir() == lora
    if lora:
        check_adapter(official_folder, made, output)


def check_adapter(base: Path, made: Path, output: Path) -> None:
    name = "model.embed_tokens.weight"
    rows = [stored_tensors(folder)[name].read() for folder in (base, made)]
    changed = (rows[0] != rows[1]).any(dim=1).nonzero().flatten().tolist()
    assert set(changed) <= {OFFICIAL.boa, OFFICIAL.eoa, *OFFICIAL.action}
    head = [stored_tensors(folder)["lm_head.weight"].read() for folder in (base, made)]
    assert torch.equal(*head)
    model = emu_agent.load_world_model(base)
    fold_adapter(model, made / "adapter")
    folded = model.state_dict()["model.layers.0.self_attn.o_proj.weight"]
    wanted = stored_tensors(made)["model.layers.0.self_attn.o_proj.weight"].read(torch.float32)
    torch.testing.assert_close(folded, wanted, atol=1e-3, rtol=1e-2)
    with safe_open(output / "state.safetensors", "pt") as file:
        assert not [key for key in file.keys() if "base_layer" in key or "lm_head" in key]  # noqa: SIM118


def test_a_run_that_was_stopped_goes_on(official_folder: Path, dataset: Path, tmp_path: Path) -> None:
    lora = "lora={r: 2}"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(arguments(official_folder, dataset, whole, lora)) == 0
    from emu_agent.training import loop

    update, done = loop._update, []

    def stopping(*args: object) -> dict[str, float]:
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return update(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_update", stopping)
        assert main(arguments(official_folder, dataset, parts, lora)) == 130
    assert main(arguments(official_folder, dataset, parts, lora)) == 0
    for key, tensor in stored_tensors(whole / "checkpoint").items():
        assert torch.equal(tensor.read(), stored_tensors(parts / "checkpoint")[key].read()), key


def test_what_cannot_be_fine_tuned_is_told(
    reference: Path, official_folder: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(*args: str) -> str:
        assert main(list(args)) == 2
        return capsys.readouterr().err

    assert "give weights=FOLDER too" in complaint("train", "lora={r: 2}", f"output={tmp_path / 'a'}")
    assert "for stage=world_model, not stage=tokenizer" in complaint(
        "train", "stage=tokenizer", f"weights={official_folder}", f"output={tmp_path / 'b'}"
    )
    alone = tmp_path / "alone" / "model"
    alone.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (alone / name).symlink_to(official_folder / name)
    assert "has no image tokenizer and no text tokenizer" in complaint(
        *arguments(alone, dataset, tmp_path / "c")
    )
    assert "has 512 codes; the published vocabulary has 131072" in complaint(
        *arguments(reference / "generation", dataset, tmp_path / "d")
    )
