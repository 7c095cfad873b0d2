"""Two processes give what one gives at the same batch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import OmegaConf

from emu_agent.commands import train

PROGRAM = """
import sys
import emu_agent.commands.train
from omegaconf import OmegaConf

if __name__ == "__main__":
    sys.exit(emu_agent.commands.train.main(OmegaConf.load(sys.argv[1])))
"""


def losses(run: Path) -> list[float]:
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_give_the_loss_of_one(tiny_data: ModuleType, tiny_chain: Path, tmp_path: Path) -> None:
    cfg = tiny_data.train_config("world_model", tiny_chain / "data" / "cells", tiny_chain / "runs")
    cfg.stage.loop.update({"updates": 8, "log_every": 1, "validate_every": 8, "save_every": 8})
    cfg.output = str(tmp_path / "one")
    assert train.main(cfg) == 0
    cfg.output = str(tmp_path / "two")
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run(
        [sys.executable, *command, str(tmp_path / "program.py"), str(tmp_path / "config.yaml")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=600,
    )
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert (tmp_path / "two" / "checkpoint" / "config.json").exists()
