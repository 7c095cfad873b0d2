"""Branches: what follows other chunks from one saved state; toy and real environments."""

import io
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from emu_agent.commands import collect
from emu_agent.config import config_dir
from emu_agent.data.columns import BRANCH_CHUNK, BRANCH_STATE, BRANCH_TIMESTEP, EXECUTED, SEED
from emu_agent.data.frames import load_frames
from emu_agent.data.lerobot_folder import LeRobotFolder, vectors
from emu_agent.episodes.branching import OWN, BranchWork, branch_episodes, random_chunk
from emu_agent.episodes.environment import stateful
from emu_agent.episodes.executors import Job
from emu_agent.errors import ConfigError, DatasetError


def toy_config(output: Path, **changes: object) -> DictConfig:
    config = OmegaConf.load(config_dir() / "collect.yaml")
    del config["defaults"]
    toy = {
        "suite": "toys", "episodes": 3, "branches": 6, "states": 2, "chunk": 3,
        "workers": 1, "output": str(output),
        "tasks": {"_target_": "toy_reach.find_tasks"},
        "make": {"_target_": "toy_reach.make_task", "id": "{}"},
        "perturbation": {"_target_": "toy_reach.ToyPerturbation", "delay_s": 0.0},
    }  # fmt: skip
    return OmegaConf.merge(config, toy, changes)


def work(make: dict, perturbation: dict) -> BranchWork:
    return BranchWork(make=make, perturbation=perturbation, phrasings={}, max_steps=30, states=2, branches=5)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_dataset_says_which_state_and_which_chunk(tmp_path: Path, toy_reach: ModuleType) -> None:
    root = tmp_path / "data"
    assert collect.main(toy_config(root)) == 0
    folder, frames = LeRobotFolder(root), load_frames(root, ["front"])
    assert set(folder.lengths) == {4}
    table = folder.table([BRANCH_STATE, BRANCH_TIMESTEP, BRANCH_CHUNK, SEED, EXECUTED])
    state, timestep, seed = (
        vectors(table, c)[:, 0].reshape(-1, 4) for c in (BRANCH_STATE, BRANCH_TIMESTEP, SEED)
    )
    kinds = np.array(table[BRANCH_CHUNK].to_pylist()).reshape(-1, 4)
    assert (state == np.repeat(np.arange(6), 6)[:, None]).all()
    assert kinds[:6, 0].tolist() == [OWN, "other", "negated", "hold", "random", "random-2"]
    assert {len(set(seed[state[:, 0] == s].ravel())) for s in range(6)} == {1}
    assert sorted(set(seed.ravel())) == [0, 1, 2]
    images = frames.images["front"].reshape(-1, 4, 32, 32, 3)
    for s in range(6):
        rows = np.flatnonzero(state[:, 0] == s)
        assert len(np.unique(images[rows, 0], axis=0)) == 1
        assert len(np.unique(timestep[rows])) == 1
    assert len(np.unique(images[:6, -1], axis=0)) == 6
    executed = frames.executed.reshape(-1, 4, 7)
    assert not executed[3, :, :6].any()
    assert np.array_equal(executed[2, :3, :6], -executed[0, :3, :6])
    manifest = json.loads((root / "manifest.json").read_text())
    assert manifest["branches"] == {"each": 6, "chunk": 3, "states": {"toy/reach": 6}, "left_out": {}}
    assert collect.main(toy_config(root)) == 0
    with pytest.raises(DatasetError, match="holds the branches of 3 episodes and cannot grow"):
        collect.main(toy_config(root, episodes=4))


def test_a_state_that_does_not_replay_is_left_out(tmp_path: Path, toy_reach: ModuleType) -> None:
    toy = {"_target_": "toy_reach.make_task", "id": "{}"}
    perturbation = {"_target_": "toy_reach.ToyPerturbation"}
    made = {task: work(toy, perturbation)(Job(task, 0)) for task in ("toy/reach", "toy/adrift")}
    files = {task: tmp_path / f"{task[4:]}.npz" for task in made}
    for task, file in files.items():
        file.write_bytes(made[task]["file"])
    left_out = {task: np.load(file)["extra.left_out"] for task, file in files.items()}
    assert not len(left_out["toy/reach"])
    assert len(left_out["toy/adrift"]) == 2
    assert len(list(branch_episodes(files.values()))) == 2 * 5


@pytest.mark.parametrize("branches", [1, 2.5, "many"])
def test_one_chunk_is_no_counterfactual(tmp_path: Path, branches: object) -> None:
    with pytest.raises(ConfigError, match="must be a whole number of at least 2"):
        collect.main(toy_config(tmp_path / "data", branches=branches))


def test_an_environment_that_cannot_save_its_state_is_refused() -> None:
    import gymnasium

    with pytest.raises(ConfigError, match="branches need an environment with `get_state`"):
        stateful(gymnasium.make("CartPole-v1"))


def test_random_chunks_are_smooth() -> None:
    rng = np.random.default_rng(0)
    chunks = np.stack([random_chunk((8, 7), -1.0, rng) for _ in range(200)])
    assert np.abs(np.diff(chunks[..., :6], axis=1)).max() < 2 / 3
    assert chunks[..., :3].std() > 0.4
    assert np.abs(chunks[..., 3:6]).max() <= 0.2 < np.abs(chunks[..., :3]).max()
    assert (chunks[..., -1] == chunks[:, :1, -1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["emu/robosuite/Lift", "emu/cubes/red_in_bin", "emu/metaworld/door-open-v3"])
def test_every_suite_branches(task: str) -> None:
    make = {"_target_": "gymnasium.make", "id": "emu_envs:{}", "image_size": 64, "preset": "fast"}
    perturbation = {"_target_": "emu_envs.experts.Perturbation", "levels": [1.0]}
    made = np.load(io.BytesIO(work(make, perturbation)(Job(task, 3))["file"]))
    assert len(made["extra.left_out"]) == 0
    assert len(made["extra.timesteps"]) == 2 * 5
    assert len(made["rewards"]) == 2 * 5 * 9
