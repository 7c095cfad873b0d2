import subprocess
import sys
from pathlib import Path

import pytest

from emu_agent.errors import ConfigError
from emu_agent.run_folder import RunFolder, default_folder, replacing, write_json, write_text

CONFIG = {"episodes": 3, "seed": 7, "policy": {"imagine": "never", "noise": 0.1}}


def open_run(path: Path, **changes: object) -> RunFolder:
    return RunFolder.open(path, {**CONFIG, **changes}, may_differ=("episodes",))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "numbers.json"
    write_text(path, "old")

    def break_off() -> None:
        with replacing(path) as part:
            part.write_text("half of the ne")
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        break_off()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_json_that_others_cannot_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "numbers.json"
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"rate": float("nan")})
    assert not path.exists()


def test_a_run_is_resumed_and_knows_what_is_finished(tmp_path: Path) -> None:
    folder = open_run(tmp_path / "run")
    write_json(folder.episode_file(8), {"seed": 8, "success": True})
    folder.episode_file(9).with_name("9.json.part-123").write_text("{")
    again = open_run(tmp_path / "run", episodes=50)
    assert again.finished() == {8: {"seed": 8, "success": True}}
    assert [path.name for path in again.episodes.iterdir()] == ["8.json"]


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from emu_agent.run_folder import RunFolder\n"
        "RunFolder.open(Path(sys.argv[1]), {}); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"  # type: ignore[union-attr]
        part = tmp_path / "run" / "state.part-1"
        part.write_text("being written")
        with pytest.raises(ConfigError, match="another process works in"):
            RunFolder.open(tmp_path / "run", {})
        assert part.exists()
        other.kill()
    RunFolder.open(tmp_path / "run", {})
    assert not part.exists()


def test_another_config_is_refused_with_both_values(tmp_path: Path) -> None:
    open_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"policy\.imagine: 'never' there, 'always' now"):
        open_run(tmp_path / "run", policy={"imagine": "always", "noise": 0.1})
    with pytest.raises(ConfigError, match="camera: None there, 'front' now"):
        open_run(tmp_path / "run", camera="front")


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="holds no run"):
        open_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    folder = open_run(tmp_path / "run")
    write_text(folder.episode_file(7), "{")
    with pytest.raises(ConfigError, match=r"7\.json is no episode record"):
        folder.finished()


def test_default_folders_sort_by_time_and_say_what_they_hold() -> None:
    path = default_folder("robosuite_lift", "adaptive")
    assert path.parent == Path("runs")
    assert path.name[:2] == "20"
    assert path.name.endswith("-robosuite_lift-adaptive")
