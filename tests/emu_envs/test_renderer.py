"""Presets of the renderer on a small scene, and on Lift against MuJoCo's own way of drawing."""

from typing import Any

import cv2
import gymnasium
import numpy as np
import pytest
from emu_envs.opengl import mujoco
from emu_envs.renderer import COLLISION_GROUP, PRESETS, Renderer, render_preset
from emu_envs.suites.robosuite import RobosuiteEnv

SCENE = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="plane" size="0 0 1" group="1"/>
    <geom type="box" size="0.3 0.2 0.2" euler="0 0 30" rgba="0.9 0.1 0.1 1" group="1"/>
    <camera name="eye" pos="0 -1 0.6" euler="60 0 0"/>
  </worldbody>
</mujoco>
"""


SHADOW = """
<mujoco>
  <worldbody>
    <light pos="0 2 3" dir="0 -0.6 -1" directional="true"/>
    <geom type="plane" size="4 4 1" group="1"/>
    <geom name="behind" type="box" size="0.3 0.3 0.5" pos="0 -0.8 1.4" group="1"/>
    <camera name="eye" pos="0 -1.2 0.5" euler="0 0 0"/>
  </worldbody>
</mujoco>
"""
"""A box behind the camera, whose shadow may fall before it."""


def draw(preset: str, size: int, scene: str = SCENE) -> np.ndarray:
    model = mujoco.MjModel.from_xml_string(scene)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = Renderer(model, size, render_preset(preset))
    picture = renderer.render(data, ["eye"])[0]
    renderer.close()
    return picture


def test_a_smooth_picture_is_the_mean_of_a_larger_one() -> None:
    larger = draw("fast", 64).astype(np.float64)
    mean = larger.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(draw("smooth", 32) - mean).max() <= 0.5


def test_smooth_edges_are_nearer_to_the_truth() -> None:
    truth = cv2.resize(draw("fast", 512), (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64)
    fast, smooth = (np.square(draw(preset, 32) - truth).mean() for preset in ("fast", "smooth"))
    assert smooth < 0.5 * fast


def test_shadows_of_what_is_out_of_view_are_drawn() -> None:
    without = draw("full", 64, SHADOW.replace('name="behind"', 'name="behind" rgba="0 0 0 0"'))
    assert not np.array_equal(draw("full", 64, SHADOW), without)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_pictures_may_be_larger_than_the_models_frame(preset: str) -> None:
    assert draw(preset, 700).shape == (700, 700, 3)


@pytest.mark.slow
def test_lift_looks_as_mujoco_draws_all_of_it() -> None:
    env: Any = gymnasium.make(
        "emu_envs:emu/robosuite/Lift", preset="fast", camera_names=list(RobosuiteEnv.cameras)
    )
    env.reset(seed=3)
    model, data = env.unwrapped.simulation
    rng = np.random.default_rng(0)
    options = mujoco.MjvOption()
    options.geomgroup[COLLISION_GROUP] = 0
    with mujoco.Renderer(model, 128, 128) as plain:
        plain.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        plain.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        for _ in range(4):
            pictures = env.step(rng.uniform(-1, 1, 7).astype(np.float32))[0]["pixels"]
            for name, camera in RobosuiteEnv.cameras.items():
                plain.update_scene(data, camera, options)
                assert np.array_equal(pictures[name], plain.render()), name
    env.close()
