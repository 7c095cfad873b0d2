"""MuJoCo, with the OpenGL backend chosen first: what it draws with is settled when it is imported."""

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

__all__ = ["mujoco"]
