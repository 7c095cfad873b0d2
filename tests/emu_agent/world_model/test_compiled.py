import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emu_agent.world_model.fast import lacks


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_steps_are_twins_of_the_plain_model() -> None:
    if missing := lacks(torch.device("cpu")):
        pytest.skip(f"this machine lacks {missing}")
    script = Path(__file__).with_name("compiled_twins.py")
    done = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
