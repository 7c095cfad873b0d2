"""One renderer between MuJoCo and every environment.

On software OpenGL the picture's cost is shadows, reflections, multisampling, the number of mesh vertices and,
from about 256 x 256 on, pixels. A preset says which of these are paid for. `mujoco.Renderer` makes its own
context current before each render, so several environments can live in one process without drawing each
other's textures.

MuJoCo draws every geom and site of the model for every picture, those behind the camera included, and without
a GPU each costs its vertices. Without shadows and reflections, in which what is out of view is seen as well,
those whose bounding spheres are wholly outside of the camera's pyramid of view, and what is wholly
transparent, are moved to a group that is not drawn; the pictures stay the same to the last byte.
"""

import atexit
import functools
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from emu_envs.errors import GraphicsError, lookup
from emu_envs.opengl import mujoco

HIDDEN_GROUP = 5
"""Group of geoms and sites that MuJoCo leaves out unless told otherwise (as all from 3 on)."""

_GROUPS_CHANGE = threading.Lock()
"""Groups belong to the model, which renderers in several threads may share."""


@contextmanager
def unseen_hidden(model: mujoco.MjModel, data: mujoco.MjData, camera: str) -> Iterator[None]:
    """Hide what the named camera cannot see, until the context ends.

    Args:
        model: The model; its groups are put back at the end.
        data: State with the present poses.
        camera: Name of a camera of the model.
    """
    number = model.camera(camera).id
    hidden_geoms = outside(model, data, number, data.geom_xpos, model.geom_rbound)
    invisible = (model.site_rgba[:, 3] <= 0) & (model.site_matid < 0)
    sites_at, at_most = data.site_xpos, model.site_size.sum(axis=1)
    hidden_sites = invisible | outside(model, data, number, sites_at, at_most)
    with _GROUPS_CHANGE:
        geom_groups, site_groups = model.geom_group.copy(), model.site_group.copy()
        model.geom_group[hidden_geoms] = HIDDEN_GROUP
        model.site_group[hidden_sites] = HIDDEN_GROUP
        try:
            yield
        finally:
            model.geom_group[:], model.site_group[:] = geom_groups, site_groups


def outside(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    camera: int,
    centers: Float[np.ndarray, "spheres 3"],
    radii: Float[np.ndarray, " spheres"],
) -> Bool[np.ndarray, " spheres"]:
    """Return which spheres a camera cannot see any part of, in a square picture.

    Args:
        model: The model.
        data: State with the present poses.
        camera: Number of the camera; one that is not the plain perspective kind is taken to see everything.
        centers: Of the spheres, in the world [m].
        radii: Of the spheres [m]; 0 is without bounds (a plane) and always seen.
    """
    special = model.cam_projection[camera] != mujoco.mjtProjection.mjPROJ_PERSPECTIVE
    if special or model.cam_sensorsize[camera].any():
        return np.zeros(len(radii), dtype=bool)
    # In the camera's frame x is right, y is up, and it looks along -z.
    x, y, z = ((centers - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)).T
    half = np.deg2rad(model.cam_fovy[camera] / 2)
    behind = z > radii
    beside = np.maximum(np.abs(x), np.abs(y)) * np.cos(half) + z * np.sin(half) > radii
    return (behind | beside) & (radii > 0)


COLLISION_GROUP = 0
"""robosuite's geom group of collision shapes, which no camera should show."""


@dataclass(frozen=True, kw_only=True)
class RenderPreset:
    """What a picture pays for; part of the environment's fingerprint."""

    name: str
    """Name in `PRESETS`."""
    shadows: bool
    """Draw shadows (one extra pass over the scene for each light)."""
    reflections: bool
    """Draw reflections (one extra pass over the scene)."""
    multisamples: int
    """Samples per pixel; 0 is one sample without smoothing of edges."""
    mesh_keep: float
    """Fraction of the triangles of visual meshes that is kept; 1 leaves the meshes as they are."""
    supersamples: int = 1
    """Pixels drawn for each pixel of the picture, along either side; it becomes their mean. 2 smooths edges
    and textures better than multisampling does, in less time."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return asdict(self)


PRESETS = {
    preset.name: preset
    for preset in (
        RenderPreset(name="fast", shadows=False, reflections=False, multisamples=0, mesh_keep=0.1),
        RenderPreset(
            name="smooth", shadows=False, reflections=False, multisamples=0, mesh_keep=0.1, supersamples=2
        ),
        RenderPreset(name="lite", shadows=False, reflections=False, multisamples=0, mesh_keep=1.0),
        RenderPreset(name="full", shadows=True, reflections=True, multisamples=4, mesh_keep=1.0),
    )
}


def render_preset(name: str) -> RenderPreset:
    """Return the preset called `name`.

    Raises:
        UnknownNameError: there is no such preset; the message lists them.
    """
    return lookup("render preset", name, PRESETS)


def look_at(eye: tuple[float, float, float], target: tuple[float, float, float]) -> Float[np.ndarray, "4"]:
    """Orientation (w, x, y, z) of a camera at `eye` that has `target` in the middle of its image."""
    backward = np.subtract(eye, target) / np.linalg.norm(np.subtract(eye, target))
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(backward, right), backward], axis=1)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, axes.flatten())
    return quaternion


_open = weakref.WeakSet["Renderer"]()
"""Renderers of this process."""
_inherited: list[object] = []
"""In a process forked from one that had used OpenGL: what must be neither used nor freed in it."""


def _forked() -> None:
    used = getattr(sys.modules.get("mujoco.egl"), "EGL_DISPLAY", None)
    _inherited.extend([*([used] if used else []), *(renderer._renderer for renderer in _open)])


@functools.cache
def _close_at_exit() -> None:
    """Close what is open before mujoco ends OpenGL: what is registered later runs earlier."""
    atexit.register(lambda: [renderer.close() for renderer in tuple(_open)])


def _refuse_inherited() -> None:
    if _inherited:
        raise GraphicsError(
            "this process was forked from one that had drawn with OpenGL, and would hang: start it by spawn, "
            'for example gymnasium.make_vec(..., vector_kwargs={"context": "spawn"}) or '
            'multiprocessing.get_context("spawn")'
        )


os.register_at_fork(after_in_child=_forked)


class Renderer:
    """Draws the named cameras of one MuJoCo model with one preset.

    Raises:
        GraphicsError: no OpenGL context could be created, or this process was forked from one that had one.
    """

    def __init__(self, model: mujoco.MjModel, image_size: int, preset: RenderPreset) -> None:
        _refuse_inherited()
        drawn = image_size * preset.supersamples
        model.vis.quality.offsamples = preset.multisamples  # read once, when the context is made
        frame = model.vis.global_  # the same; largest picture that can be drawn
        frame.offwidth, frame.offheight = max(frame.offwidth, drawn), max(frame.offheight, drawn)
        try:
            self._renderer = mujoco.Renderer(model, height=drawn, width=drawn)
        except Exception as error:  # mujoco raises whatever its GL backend raises, also AttributeError
            raise GraphicsError(
                f"no OpenGL context with MUJOCO_GL={os.environ['MUJOCO_GL']!r} ({error}); on Debian or "
                "Ubuntu install libegl1 and libgl1, or libosmesa6 and set MUJOCO_GL=osmesa; "
                "`emu-agent doctor` tries each backend"
            ) from error
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = preset.shadows
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = preset.reflections
        self._culls = not (preset.shadows or preset.reflections)
        self._model, self._size = model, (image_size, image_size)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[COLLISION_GROUP] = 0
        _open.add(self)
        _close_at_exit()

    def render(
        self, data: mujoco.MjData, cameras: Sequence[str]
    ) -> list[UInt8[np.ndarray, "height width 3"]]:
        """Return one picture per camera, first row at the top."""
        _refuse_inherited()
        pictures = []
        for camera in cameras:
            with unseen_hidden(self._model, data, camera) if self._culls else nullcontext():
                self._renderer.update_scene(data, camera, self._options)
            picture = self._renderer.render()
            if picture.shape[:2] != self._size:
                picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
            pictures.append(picture)
        return pictures

    def close(self) -> None:
        """Free the OpenGL context."""
        if not _inherited:
            self._renderer.close()
