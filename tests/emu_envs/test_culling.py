"""Hiding what a camera cannot see against drawing everything, which is the slow twin."""

import numpy as np
import pytest
from emu_envs.opengl import mujoco
from emu_envs.renderer import outside, unseen_hidden
from hypothesis import given
from hypothesis import strategies as st

SCENE = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="plane" size="0 0 1" rgba="0.4 0.6 0.4 1"/>
    {geoms}
    <site type="sphere" size="0.3" pos="0 1 0.5" rgba="1 0 0 1"/>
    <site type="cylinder" size="0.1 0.8" pos="1 1 0.5" rgba="0 0 1 0.5"/>
    <site type="box" size="0.4 0.4 0.4" pos="0 0.8 0.5" rgba="0 1 0 0"/>
    <camera name="eye" pos="0 -1 0.6" euler="80 0 0" fovy="{fovy}"/>
    <camera name="flat" pos="0 -1 0.6" euler="80 0 0" projection="orthographic" fovy="2"/>
  </worldbody>
</mujoco>
"""
KINDS = ("sphere", "box", "capsule", "cylinder", "ellipsoid")


def scene(seed: int, fovy: float = 50) -> tuple[mujoco.MjModel, mujoco.MjData]:
    rng = np.random.default_rng(seed)
    geoms = []
    for number in range(40):
        place, turn, size = rng.uniform(-3, 3, 3), rng.uniform(-180, 180, 3), rng.uniform(0.05, 0.5, 3)
        color = rng.uniform(0.2, 1, 3)
        geoms.append(
            f'<geom type="{KINDS[number % len(KINDS)]}" size="{" ".join(map(str, size))}" '
            f'pos="{" ".join(map(str, place))}" euler="{" ".join(map(str, turn))}" '
            f'rgba="{" ".join(map(str, color))} 1"/>'
        )
    model = mujoco.MjModel.from_xml_string(SCENE.format(geoms="".join(geoms), fovy=fovy))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.mark.parametrize(("seed", "fovy"), [(0, 50), (1, 20), (2, 100)])
def test_pictures_stay_the_same_with_less_to_draw(seed: int, fovy: float) -> None:
    model, data = scene(seed, fovy)
    with mujoco.Renderer(model, 96, 96) as renderer:
        for camera in ("eye", "flat"):
            renderer.update_scene(data, camera)
            everything, expected = renderer.scene.ngeom, renderer.render().copy()
            with unseen_hidden(model, data, camera):
                renderer.update_scene(data, camera)
            assert np.array_equal(renderer.render(), expected)
            # The orthographic camera's view is no pyramid: there nothing is left out that MuJoCo draws.
            left = renderer.scene.ngeom
            assert left < everything - 10 if camera == "eye" else left == everything


def test_groups_are_put_back_also_after_an_error() -> None:
    model, data = scene(0)
    geoms, sites = model.geom_group.copy(), model.site_group.copy()
    with unseen_hidden(model, data, "eye"):
        assert not np.array_equal(model.geom_group, geoms)
        assert not np.array_equal(model.site_group, sites)
    assert np.array_equal(model.geom_group, geoms)
    with pytest.raises(ZeroDivisionError), unseen_hidden(model, data, "eye"):
        raise ZeroDivisionError
    assert np.array_equal(model.geom_group, geoms)
    assert np.array_equal(model.site_group, sites)


MODEL, DATA = scene(0)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.5))
def test_no_point_of_a_sphere_that_is_outside_can_be_seen(seed: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-3, 3, (20, 3))
    away = outside(MODEL, DATA, 0, centers, np.full(20, radius))
    directions = rng.normal(size=(200, 3))
    on_it = radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    points = (centers[away][:, None] + on_it).reshape(-1, 3)
    x, y, z = ((points - DATA.cam_xpos[0]) @ DATA.cam_xmat[0].reshape(3, 3)).T
    reach = -z * np.tan(np.deg2rad(25))
    assert not ((z < 0) & (np.abs(x) <= reach) & (np.abs(y) <= reach)).any()


def test_what_has_no_bounds_is_always_seen() -> None:
    behind = DATA.cam_xpos[:1] + 2.0 * DATA.cam_xmat[0].reshape(3, 3)[:, 2]
    assert outside(MODEL, DATA, 0, behind, np.array([1.0])).all()
    assert not outside(MODEL, DATA, 0, behind, np.array([0.0])).any()
    assert not outside(MODEL, DATA, 0, behind, np.array([2.5])).any()
