import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["nonsense", "vulkan"])
def test_a_backend_that_is_none_is_told_in_words(backend: str) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "emu_agent", "run", "policy=random", "episodes=1"],
        env={**os.environ, "MUJOCO_GL": backend}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 2
    assert f"MUJOCO_GL='{backend}'" in made.stderr
    assert "emu-agent doctor" in made.stderr
    assert "Traceback" not in made.stderr
