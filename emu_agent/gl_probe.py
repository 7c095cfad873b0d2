"""Draw a small MuJoCo scene with the backend that MUJOCO_GL names; print what drew it and how fast, as JSON.

Run as a process of its own (`python -m emu_agent.gl_probe`): MuJoCo settles on a backend when it is imported,
and a broken driver may end the process.
"""

import json
import sys
import time

SCENE = '<mujoco><worldbody><light castshadow="false"/><geom type="box" size="1 1 1"/></worldbody></mujoco>'
SIZE = 128
SECONDS = 0.5


def probe() -> dict[str, object]:
    """The driver's name, frames per second, and whether the picture shows anything."""
    import mujoco
    from OpenGL import GL

    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, SIZE, SIZE) as renderer:
        renderer.update_scene(data)
        picture = renderer.render()
        driver = GL.glGetString(GL.GL_RENDERER)
        frames, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            renderer.update_scene(data)
            renderer.render()
            frames += 1
        fps = frames / (time.perf_counter() - start)
    return {
        "driver": str(driver, "ascii") if driver else "unknown",
        "fps": round(fps, 1),
        "drawn": bool(picture.std() > 1),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe()) + "\n")
