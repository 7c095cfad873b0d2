"""What a camera cannot see is not handed to OpenGL; the pictures stay the same to the last byte.

That holds without shadows and reflections, in which what is out of view is seen as well.

MuJoCo draws every geom and site of the model for every picture, those behind the camera included, and without
a GPU each costs its vertices. Here the bounding spheres that are wholly outside of the camera's pyramid of
view, and what is wholly transparent, are moved to a group that is not drawn while MuJoCo collects what it
draws.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Bool, Float

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
