"""One renderer between MuJoCo and every environment.

On software OpenGL the picture's cost is shadows, reflections, multisampling, the number of mesh vertices and,
from about 256 x 256 on, pixels. A preset says which of these are paid for. `mujoco.Renderer` makes its own
context current before each render, so several environments can live in one process without drawing each
other's textures.
"""

import atexit
import functools
import os
import sys
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from emu_envs.culling import unseen_hidden
from emu_envs.errors import GraphicsError, lookup
from emu_envs.opengl import mujoco

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
