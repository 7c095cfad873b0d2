from typing import Any

import gymnasium
import numpy as np
import pytest
from emu_envs.disturbance import KINDS, REACH, DisturbedEnv
from emu_envs.errors import UnknownNameError

pytestmark = pytest.mark.slow

STILL = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)


@pytest.fixture(scope="module")
def plain():  # type: ignore[no-untyped-def]
    env = gymnasium.make("emu_envs:emu/robosuite/Lift", image_size=64)
    yield env
    env.close()


def pictures(
    env: gymnasium.Env, seed: int, steps: int = 4
) -> tuple[list[np.ndarray], list[np.ndarray], dict]:
    """Frames of the first camera, object positions, and the last info."""
    raw, info = env.reset(seed=seed)
    frames, objects = [], []
    for _ in range(steps):
        frames.append(raw["pixels"]["agentview"].copy())
        objects.append(env.unwrapped.privileged_state()["cube_position"].copy())  # type: ignore[attr-defined]
        raw, _, _, _, info = env.step(STILL)
    frames.append(raw["pixels"]["agentview"].copy())
    objects.append(env.unwrapped.privileged_state()["cube_position"].copy())  # type: ignore[attr-defined]
    return frames, objects, info


@pytest.fixture(scope="module")
def undisturbed(plain: gymnasium.Env) -> tuple[Any, ...]:
    return pictures(plain, seed=40)


@pytest.mark.parametrize("kind", KINDS)
def test_a_disturbance_changes_what_it_says_and_when_it_says(
    plain: gymnasium.Env, undisturbed: tuple[Any, ...], kind: str
) -> None:
    env = DisturbedEnv(plain, (kind,), moments=(2, 2))
    frames, objects, info = pictures(env, seed=40)
    env.reset(seed=40)  # puts the camera back where the next test expects it
    assert (info["disturbance"], info["disturbed_at"]) == (kind, None if kind == "none" else 2)
    same = [np.array_equal(a, b) for a, b in zip(frames, undisturbed[0], strict=True)]
    assert same == [True] * 5 if kind == "none" else same == [True] * 3 + [False] * 2
    way = np.linalg.norm(objects[-1][:2] - undisturbed[1][-1][:2])
    assert 0.02 < way < 1.5 * REACH if kind == "push" else way < 1e-3


def test_afterwards_all_is_as_before(plain: gymnasium.Env, undisturbed: tuple[Any, ...]) -> None:
    env = DisturbedEnv(plain, ("camera", "none"), moments=(0, 0))
    pictures(env, seed=40)
    frames, *_ = pictures(env, seed=41)
    again, *_ = pictures(plain, seed=41)
    assert all(np.array_equal(a, b) for a, b in zip(frames, again, strict=True))


def test_the_same_seed_is_disturbed_in_the_same_way(plain: gymnasium.Env) -> None:
    one, other = (pictures(DisturbedEnv(plain, ("occluder",), moments=(1, 3)), seed=6) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one[0], other[0], strict=True))


def test_unknown_disturbances_are_refused_with_the_choices(plain: gymnasium.Env) -> None:
    with pytest.raises(UnknownNameError, match=r"flood.*camera.*none.*occluder.*push"):
        DisturbedEnv(plain, ("flood",))


def test_the_fingerprint_says_what_may_go_wrong(plain: gymnasium.Env) -> None:
    inner = plain.unwrapped.fingerprint()  # type: ignore[attr-defined]
    found = DisturbedEnv(plain, kinds=("push",), moments=(0, 3)).fingerprint()
    assert found == {**inner, "disturbance": {"kinds": ["push"], "moments": [0, 3]}}
