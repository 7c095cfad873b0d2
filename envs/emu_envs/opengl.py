"""MuJoCo, with the OpenGL backend chosen first: what it draws with is settled when it is imported.

Its warnings go to the logger "mujoco"; by itself it writes them into MUJOCO_LOG.TXT in the working folder.
"""

import logging
import os

from emu_envs.errors import GraphicsError

os.environ.setdefault("MUJOCO_GL", "egl")
try:
    import mujoco
except (AttributeError, RuntimeError) as error:  # what its backends raise where their library is missing
    raise GraphicsError(
        f"MuJoCo cannot draw with MUJOCO_GL={os.environ['MUJOCO_GL']!r} ({error}); without a screen egl and "
        "osmesa do: on Debian or Ubuntu install libegl1 and libgl1, or libosmesa6. `emu-agent doctor` tries "
        "each of them"
    ) from error

if mujoco.get_mju_user_warning() is None:
    mujoco.set_mju_user_warning(logging.getLogger("mujoco").warning)

__all__ = ["mujoco"]
