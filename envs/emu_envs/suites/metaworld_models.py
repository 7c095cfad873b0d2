"""Meta-World's MuJoCo models: one that is simulated as Meta-World has it, one that is drawn.

The second holds the same bodies, sites and cameras. Its meshes have fewer triangles, and the floor is drawn
last: under software OpenGL what the table covers of it then costs nothing.
"""

from pathlib import Path
from typing import Any

import numpy as np

from emu_envs.meshes import simplified_mesh
from emu_envs.opengl import mujoco

FLAT = 12
"""Slices of a sphere or cylinder in the drawn model; MuJoCo's own 28 cannot be told apart at these sizes."""


def physics_model(path: str) -> mujoco.MjModel:
    """Load a model file; free joints are named after their bodies, `corner2` stands where LeRobot puts it.

    Args:
        path: Of Meta-World's model file.
    """
    return _placed(_read(path))


def drawn_model(path: str, mesh_keep: float) -> mujoco.MjModel:
    """Load a model file for drawing; `Drawing` fills in the poses.

    Args:
        path: Of Meta-World's model file.
        mesh_keep: Fraction of the triangles of a mesh that is kept; with 1 nothing is simplified.
    """
    spec = _read(path)
    for geom in spec.geoms:
        if geom.group == 0:  # our renderer takes it for collision shapes, Meta-World draws it
            geom.group = 1
    if mesh_keep < 1:
        folder = Path(path).parent / (spec.meshdir or "")
        for mesh in spec.meshes:
            mesh.file = str(simplified_mesh((folder / mesh.file).resolve(), mesh_keep))
        quality = spec.visual.quality
        quality.numslices, quality.numstacks, quality.numquads = FLAT, FLAT // 2, 1
        _floor_last(spec)
    return _placed(spec)


class Drawing:
    """A copy of a simulation that is drawn in its place.

    Args:
        path: Of Meta-World's model file.
        mesh_keep: As for `drawn_model`.
    """

    def __init__(self, path: str, mesh_keep: float) -> None:
        self.model = drawn_model(path, mesh_keep)
        self.data = mujoco.MjData(self.model)

    def follow(self, model: mujoco.MjModel, data: mujoco.MjData) -> tuple[Any, Any]:
        """Take on the poses of a simulation; returns the model and data to draw."""
        # What Meta-World's tasks write to, and what disturbs a camera.
        for field in ("body_pos", "body_quat", "site_pos", "cam_pos", "cam_quat"):
            source = getattr(model, field)
            getattr(self.model, field)[: len(source)] = source
        for field in ("qpos", "mocap_pos", "mocap_quat"):
            getattr(self.data, field)[:] = getattr(data, field)
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        return self.model, self.data


def _read(path: str) -> mujoco.MjSpec:
    spec = mujoco.MjSpec.from_file(path)
    for joint in spec.joints:
        if joint.type == mujoco.mjtJoint.mjJNT_FREE and not joint.name:
            joint.name = f"{joint.parent.name}_joint"
    return spec


def _placed(spec: mujoco.MjSpec) -> mujoco.MjModel:
    model = spec.compile()
    camera = model.camera("corner2")
    camera.pos[:] = 0.75, 0.075, 0.7
    upright = np.empty(4)  # it is mounted upside down: half a turn about its own axis
    mujoco.mju_mulQuat(upright, camera.quat, np.array([0.0, 0.0, 0.0, 1.0]))
    camera.quat[:] = upright
    return model


def _floor_last(spec: mujoco.MjSpec) -> None:
    floor = spec.geom("floor")
    last = spec.worldbody.add_body(name="floor")
    last.add_geom(type=floor.type, size=floor.size, pos=floor.pos, material=floor.material, group=floor.group)
    spec.delete(floor)
