import json
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from emu_policies import ActionGate, ActionLimits, InterventionKind, InterventionLog
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emu_agent.errors import ConfigError, SafetyError

REST = np.zeros(3)


@pytest.fixture
def arm(fakes: ModuleType) -> ModuleType:
    import fake_arm

    return fake_arm


def started(limits: ActionLimits, clock: Callable[[], float] | None = None, at: object = REST) -> ActionGate:
    gate = ActionGate(limits, clock=clock)
    gate.start(at)
    return gate


# Limits


def test_absent_bounds_are_named() -> None:
    with pytest.raises(ConfigError, match=r"limits of a, b lack upper, max_velocity, workspace: set them"):
        ActionLimits(
            names=("a", "b"), units=("deg", "deg"), lower=(0.0, 0.0), max_step=(1.0, 1.0),
            max_acceleration=(1.0, 1.0), control_hz=20.0, max_observation_age_s=0.2,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"upper": (1.0, 1.0)}, "one entry per name"),
        ({"upper": (-2.0, 1.5, 2.5)}, "must be below upper"),
        ({"lower": (math.nan, 0.0, 0.0)}, "must be below upper"),
        ({"max_step": (0.0, 1.0, 1.0)}, "max_step=.* above 0"),
        ({"max_acceleration": (math.nan, 1.0, 1.0)}, "max_acceleration=.* above 0"),
        ({"control_hz": math.inf}, "control_hz=inf must be"),
        ({"hold": (9.0, 0.0, 0.0)}, "hold=.* must lie between"),
        ({"names": ("a", "a", "b")}, "names must differ"),
        ({"max_bad_actions": 0}, "max_bad_actions"),
    ],
)
def test_bounds_that_cannot_be_are_refused(arm: ModuleType, change: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        arm.arm_limits(**change)


# The laws


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_what_is_within_all_limits_passes_unchanged(data: st.DataObject) -> None:
    """Slow moves that could be braked within one period: whatever the bounds, they are nobody's business."""
    values = st.floats(0.05, 50.0)
    lower, width = data.draw(st.floats(-1e3, 1e3)), data.draw(st.floats(1.0, 1e3))
    hz, step, velocity, acceleration = (data.draw(values) for _ in range(4))
    limits = ActionLimits(
        names=("j",), units=("deg",), lower=(lower,), upper=(lower + width,), max_step=(step,), control_hz=hz,
        max_velocity=(velocity,), max_acceleration=(acceleration,), workspace="anywhere",
        max_observation_age_s=1.0,
    )  # fmt: skip
    position = lower + 0.5 * width
    gate = started(limits, at=[position])
    largest = 0.499 * min(step, velocity / hz, acceleration / hz**2)
    assume(largest > 1e-9 * (abs(lower) + width))
    for share in data.draw(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=8)):
        wanted = position + share * largest
        if not lower <= wanted <= lower + width:
            continue
        assert gate([wanted])[0] == wanted
        position = wanted
    assert gate.log.counts == {}


def test_no_action_breaks_a_limit(arm: ModuleType) -> None:
    arm.attack(0, 30, arm.arm_limits(workspace=arm.walls()))
    arm.attack(1, 60, arm.arm_limits())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_hundred_thousand_attacks_break_no_limit(arm: ModuleType) -> None:
    """In processes of their own, where no shape is checked: that would take ten times as long."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        kinds = [kind for done in pool.map(arm.attack_an_arm, range(100)) for kind in done]
    assert set(kinds) == set(InterventionKind)


def test_the_watched_arm_sees_every_kind_of_violation(arm: ModuleType) -> None:
    limits = arm.arm_limits(workspace=arm.walls())
    for action in ([3.0, 0, 0], [0.1, 0, 0], [0, 0.15, 0], [0, 0, math.nan], [1.2, 0, 0]):
        watched = arm.WatchedArm(limits, REST)
        watched.send(np.array(action))
        assert watched.violations, action


# Single bounds


@pytest.mark.parametrize("bound", ["max_step", "max_velocity", "max_acceleration"])
def test_a_step_is_shortened_to_the_bound(arm: ModuleType, bound: str) -> None:
    free = dict.fromkeys(("max_step", "max_velocity", "max_acceleration"), (math.inf,) * 3)
    gate = started(arm.arm_limits(**{**free, bound: (1.0,) * 3}))
    per_step = {"max_step": 1.0, "max_velocity": 1 / 20, "max_acceleration": 1 / 400}[bound]
    assert gate([1.5, -0.0001, 0.0]).tolist() == pytest.approx([per_step, -0.0001, 0.0])
    assert gate.log.counts[bound.removeprefix("max_")] == 1
    assert gate.log.latest[0].names == ("pan.pos",)
    assert gate.log.latest[0].wanted == (1.5, -0.0001, 0.0)


def test_a_joint_brakes_in_time_for_its_bound(arm: ModuleType) -> None:
    limits = arm.arm_limits()
    gate, watched = started(limits), arm.WatchedArm(limits, REST)
    for _ in range(50):
        watched.send(gate([2.0, 0.0, 0.0]))
    assert watched.violations == []
    assert watched.position[0] == pytest.approx(2.0)
    assert gate.log.counts["braking"] >= 1


def test_the_arm_stops_at_the_wall(arm: ModuleType) -> None:
    limits = arm.arm_limits(workspace=arm.walls())
    gate, watched = started(limits), arm.WatchedArm(limits, REST)
    for _ in range(25):
        watched.send(gate([1.5, 0.0, 0.0]))
    assert watched.violations == []
    assert gate.log.counts["workspace"] >= 1
    assert 0.40 < arm.tool(watched.position)[2, 1] <= 0.45


def test_forward_kinematics_without_an_answer_stops_the_arm(arm: ModuleType) -> None:
    walls = arm.walls()
    broken = arm.Workspace(
        low=walls.low, high=walls.high, positions=lambda q: arm.tool(q) if abs(q).max() < 0.1 else np.nan * q
    )
    limits = arm.arm_limits(workspace=broken)
    gate = started(limits)
    assert max(gate([0.5, 0.0, 0.0])[0] for _ in range(20)) < 0.1


def test_displacements_are_only_clipped_and_stand_still_at_hold() -> None:
    gate = started(ActionLimits.from_bounds([-1.0] * 3, [1.0] * 3, 20.0, hold=[0.0, 0.0, -0.5]), at=REST)
    assert gate([0.3, -5.0, 1.0]).tolist() == [0.3, -1.0, 1.0]
    assert gate([math.nan, 0.0, 0.0]).tolist() == [0.0, 0.0, -0.5]
    assert gate.log.counts == {"not_finite": 1, "position": 1}


# Bad actions, time, stops


@pytest.mark.parametrize(
    "bad", [[math.nan] * 3, [0.0, math.inf, 0.0], [0.0] * 2, "abc", None, [[0.0] * 3], 3.0]
)
def test_what_is_no_action_holds_and_three_of_them_stop(arm: ModuleType, bad: object) -> None:
    gate = started(arm.arm_limits())
    for _ in range(2):
        assert gate(bad).tolist() == [0.0] * 3
    assert gate.stop_reason is None
    gate([0.01, 0.0, 0.0])
    for _ in range(3):
        gate(bad)
    assert "3 actions in a row were unusable" in gate.stop_reason
    assert gate.log.counts["emergency_stop"] == 1


def test_a_stop_brakes_stays_and_is_cleared_by_a_person_only(arm: ModuleType) -> None:
    limits = arm.arm_limits()
    gate, watched = started(limits), arm.WatchedArm(limits, REST)
    for _ in range(10):
        watched.send(gate([2.0, 0.0, 0.0]))
    assert watched.velocity[0] > 0.5
    gate.stop("button pressed")
    gate.stop("again")
    for _ in range(20):
        watched.send(gate([-2.0, 1.0, 0.0]))
    assert watched.violations == []
    assert (watched.velocity == 0).all()
    gate.start(watched.position)
    assert gate.stop_reason == "button pressed"
    with pytest.raises(SafetyError, match="cleared by a person"):
        gate.clear(" ", watched.position)
    gate.clear("Ada", watched.position)
    assert gate(watched.position + 0.001)[0] > watched.position[0]
    counts = gate.log.counts
    assert (counts["emergency_stop"], counts["stopped"], counts["cleared"]) == (1, 20, 1)


def test_old_observations_stop_the_robot_until_fresh_ones_come(arm: ModuleType) -> None:
    clock = arm.Clock()
    gate = started(arm.arm_limits(), clock)
    for age, moves in ((0.1, True), (0.6, False), (None, False), (-0.1, False), (0.5, True)):
        clock.now += 0.05
        before = gate._motion.position
        sent = gate(before + 0.001, observed_at=None if age is None else clock.now - age)
        assert (sent != before).all() == moves, age
    assert gate.log.counts == {"stale": 3}


def test_early_actions_repeat_and_late_ones_start_from_rest(arm: ModuleType) -> None:
    clock = arm.Clock()
    gate = started(arm.arm_limits(max_observation_age_s=math.inf), clock)
    first = gate([0.02, 0.0, 0.0])
    clock.now += 0.02
    assert (gate([0.04, 0.0, 0.0]) == first).all()
    clock.now += 0.03
    assert gate([0.04, 0.0, 0.0])[0] == 0.04
    clock.now += 1.0
    assert gate([1.0, 0.0, 0.0])[0] == pytest.approx(0.04 + 8.0 / 400)
    assert {kind: gate.log.counts[kind] for kind in ("too_early", "late")} == {"too_early": 1, "late": 1}


def test_a_robot_that_stands_outside_is_not_started(arm: ModuleType) -> None:
    gate = ActionGate(arm.arm_limits(workspace=arm.walls()))
    with pytest.raises(SafetyError, match=r"call start\(position\) first"):
        gate(REST)
    for position, words in (
        ([0.0, 1.6, 0.0], "lift.pos stands at 1.6 rad, outside"),
        ([1.5, 0.0, 0.0], "outside of its workspace"),
        ([math.nan, 0.0, 0.0], "3 finite numbers"),
    ):
        with pytest.raises(SafetyError, match=words):
            gate.start(position)


# The log


def test_interventions_are_lines_of_json(arm: ModuleType, tmp_path: Path) -> None:
    log = InterventionLog(tmp_path / "gate.jsonl")
    gate = ActionGate(arm.arm_limits(), clock=None, log=log)
    gate.start(REST)
    gate([math.nan] * 3)
    gate([5.0, 0.0, 0.0])
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "gate.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows[:2]] == ["not_finite", "position"]
    assert rows[1]["wanted"] == [5.0, 0.0, 0.0]
    assert sum(log.counts.values()) == len(rows)


def test_a_full_disk_does_not_stop_control(arm: ModuleType) -> None:
    log = InterventionLog(Path("/dev/full"))
    gate = ActionGate(arm.arm_limits(), clock=None, log=log)
    gate.start(REST)
    for _ in range(2):
        gate([5.0, 0.0, 0.0])
    assert log.counts["position"] == 2
