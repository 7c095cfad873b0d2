import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_decoder_is_timed_and_the_same_steps_are_counted(tmp_path: Path) -> None:
    output = tmp_path / "speed.json"
    script = [str(ROOT / "benchmarks" / "decode_speed.py"), "--output", str(output), "--no-compile"]
    few = ["--grids", "2", "--batch", "1", "--passes", "1", "--rounds", "1", "--threads", "1"]
    subprocess.run([sys.executable, *script, *few], check=True, cwd=ROOT)
    cells = json.loads(output.read_text())["cells"]
    assert {(cell["grid"], cell["guided"]) for cell in cells} == {(2, False), (2, True)}
    for cell in cells:
        made = cell["decoders"]
        assert set(made) == {"autoregressive_eager", "autoregressive", "dida_1"}
        assert (
            made["autoregressive"]["passes"]
            == made["autoregressive_eager"]["passes"]
            > made["dida_1"]["passes"]
        )
        assert all(row["ms_per_frame"] > 0 for row in made.values())
