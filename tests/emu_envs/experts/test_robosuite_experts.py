"""Experts play the real simulator without images, a few seeds each."""

import pytest
from emu_envs.experts import Perturbation
from emu_envs.suites.robosuite import RobosuiteEnv
from emu_envs.tasks import TASK_SETS, TASKS

pytestmark = pytest.mark.slow


def solved(env: RobosuiteEnv, seed: int, perturbation: Perturbation) -> bool:
    expert = env.make_expert()
    env.reset(seed=seed)
    expert.reset(seed)
    perturbation.reset(seed)
    return any(env.step(perturbation.apply(expert.act(env)))[2] for _ in range(env.row.horizon))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("task_id", TASK_SETS["robosuite5"])
def test_an_expert_solves_its_task_whatever_disturbs_it(task_id: str) -> None:
    env = RobosuiteEnv(TASKS[task_id].name, camera_names=())
    outcomes = [solved(env, seed, Perturbation(noise=0.0, mistake_rate=0.0)) for seed in range(2)]
    outcomes += [solved(env, seed, Perturbation(noise=0.3, mistake_rate=0.04)) for seed in range(4)]
    env.close()
    assert sum(outcomes) >= 5
