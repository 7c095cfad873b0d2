"""Training that is killed or runs out of space: what was saved is kept, and the same command goes on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from emu_agent.commands import train
from emu_agent.errors import DatasetError

PROGRAM = """
import resource, sys
import emu_agent.cli, emu_agent.commands.train, emu_agent.config
from omegaconf import OmegaConf

if __name__ == "__main__":
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    emu_agent.config.load_config = lambda name, overrides, **_: OmegaConf.load(sys.argv[1])
    sys.exit(emu_agent.cli.main(["train"]))
"""
"""The command line with a config from a file: the tiny experiment is none of those that are shipped."""


def start(tmp_path: Path, cfg: DictConfig, file_limit: int | None = None) -> subprocess.Popen:
    """The command in a process of its own, which may write files of so many bytes only."""
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    (tmp_path / "program.py").write_text(PROGRAM)
    limit = [] if file_limit is None else [str(file_limit)]
    with (tmp_path / "stderr").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "config.yaml"), *limit],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=errors,
        )


def short(tiny_data: ModuleType, chain: Path, runs: Path, updates: int) -> DictConfig:
    """The first stage with a state every five updates."""
    cfg = tiny_data.train_config("tokenizer", chain / "data" / "cells", runs)
    cfg.stage.loop.update({"updates": updates, "save_every": 5, "validate_every": 50, "log_every": 5})
    return cfg


def same_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one / "state.safetensors"), load_file(other / "state.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_mistake_leaves_no_folder_behind(tiny_data: ModuleType, tmp_path: Path) -> None:
    cfg = tiny_data.train_config("tokenizer", tmp_path / "tpyo", tmp_path / "runs")
    with pytest.raises(DatasetError, match="no LeRobotDataset v3 at"):
        train.main(cfg)
    assert not Path(cfg.output).exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_training_goes_on_and_ends_like_one_that_was_not(
    tiny_data: ModuleType, tiny_chain: Path, tmp_path: Path
) -> None:
    run, cfg = tmp_path / "runs" / "tokenizer", short(tiny_data, tiny_chain, tmp_path / "runs", 150)
    process = start(tmp_path, cfg)
    try:
        deadline = time.monotonic() + 300
        while not (run / "state.safetensors").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert not (run / "result.json").exists()
    assert train.main(cfg) == 0
    assert list(run.rglob("*.part-*")) == []
    cfg.output = str(tmp_path / "whole")
    assert train.main(cfg) == 0
    assert same_weights(run, tmp_path / "whole")
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows if row["kind"] == "train"] == list(range(5, 151, 5))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_full_disk_ends_training_in_words_and_keeps_what_was_saved(
    tiny_data: ModuleType, tiny_chain: Path, tmp_path: Path
) -> None:
    run, cfg = tmp_path / "runs" / "tokenizer", short(tiny_data, tiny_chain, tmp_path / "runs", 10)
    cfg.stage.loop.validate_every = 5
    state = (tiny_chain / "runs" / "tokenizer" / "state.safetensors").stat().st_size
    assert start(tmp_path, cfg, file_limit=state // 2).wait(300) == 2
    message = (tmp_path / "stderr").read_text().splitlines()[-1]
    assert message.startswith("emu-agent: no space left")
    assert "what was finished is kept: make room, then give the command again" in message
    assert (run / "checkpoint" / "config.json").exists()  # half as large as the state: it was written
    assert not (run / "state.safetensors").exists()
    assert list(run.rglob("*.part-*")) == []
    assert train.main(cfg) == 0
    assert json.loads((run / "result.json").read_text())["validation"]["psnr"] > 0
    cfg.output = str(tmp_path / "whole")
    assert train.main(cfg) == 0
    assert same_weights(run, tmp_path / "whole")
