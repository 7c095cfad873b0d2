"""The environment plug-in under LeRobot's own functions, with the real simulator.

LeRobot is imported inside the tests: the fast suite collects this file and must not pay for it.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from emu_agent.errors import ConfigError

pytestmark = pytest.mark.slow

SEEDS = (100_000, 100_001)
SMALL = {"cameras": "agentview", "image_size": 32}
NEW = {"lerobot_new_rollout": True}


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    import lerobot_env_emu_agent

    return lerobot_env_emu_agent


@pytest.fixture
def make(plugin: ModuleType) -> Iterator[Callable[..., Any]]:
    from lerobot.envs.factory import make_env

    made = []

    def build(n_envs: int, use_async_envs: bool = False, **fields: Any) -> Any:
        config = plugin.EmuRobosuiteEnvConfig(**SMALL, **fields)
        made.append(make_env(config, n_envs, use_async_envs)["emu_robosuite"][0])
        return made[-1]

    yield build
    for env in made:
        env.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "Lfit"}, r"no task called 'Lfit'.*\['Lift'"),
        ({"cameras": "agentview,rist"}, "no camera called 'rist'.*'wrist'"),
        ({"preset": "best"}, r"no render preset called 'best'.*.'fast', 'full', 'lite', 'smooth'."),
        ({"fps": 30}, "fps=30, but the environment acts 20 times"),
        ({"episode_length": 0}, "episode_length must be at least 1, got 0"),
    ],
)
def test_what_cannot_work_is_refused_with_the_choices(
    plugin: ModuleType, fields: dict[str, Any], message: str
) -> None:
    from emu_envs.errors import EmuEnvsError

    with pytest.raises((ConfigError, EmuEnvsError), match=message):
        plugin.EmuRobosuiteEnvConfig(**fields)


def test_a_log_without_a_folder_is_refused_before_anything_is_built(
    plugin: ModuleType, tmp_path: Path
) -> None:
    config = plugin.EmuRobosuiteEnvConfig(episode_log=tmp_path / "absent" / "log.jsonl")
    with pytest.raises(ConfigError, match=r"absent/log.jsonl does not exist"):
        config.create_envs(1)


def test_the_declared_features_are_those_of_the_environment(plugin: ModuleType, make: Callable) -> None:
    from lerobot.envs.utils import env_to_policy_features, preprocess_observation

    env = make(1)
    declared = env_to_policy_features(plugin.EmuRobosuiteEnvConfig(**SMALL))
    observation = preprocess_observation(env.reset(seed=[SEEDS[0]], options=NEW)[0])
    assert declared.pop("action").shape == env.single_action_space.shape
    assert {key: feature.shape for key, feature in declared.items()} == {
        key: tuple(value.shape[1:]) for key, value in observation.items()
    }


def test_pictures_survive_the_way_through_lerobot_bit_for_bit(plugin: ModuleType, make: Callable) -> None:
    from lerobot.envs.utils import preprocess_observation

    from emu_agent.observation import Observation

    env = make(1)
    raw, _ = env.reset(seed=[SEEDS[0]], options=NEW)
    tell, _ = plugin.EmuRobosuiteEnvConfig(**SMALL).get_env_processors()
    batch = tell({**preprocess_observation(raw), "task": list(env.call("task_description"))})
    observation = Observation.from_lerobot(batch)
    assert torch.equal(observation.images["agentview"], torch.from_numpy(raw["pixels"]["agentview"]))
    assert torch.equal(observation.proprio, torch.from_numpy(raw["agent_pos"]))
    assert observation.instruction == ("lift the red cube off the table",)


def test_the_policy_is_told_the_fingerprint_of_the_environment(plugin: ModuleType, make: Callable) -> None:
    from emu_agent.fingerprint import fingerprint_differences

    config = plugin.EmuRobosuiteEnvConfig(**SMALL, preset="lite")
    told = config.get_env_processors()[0]({"observation.state": torch.zeros(1, 16)})["info"]["fingerprint"]
    actual = make(1, preset="lite").envs[0].unwrapped.fingerprint()
    assert fingerprint_differences(actual, told) == {}
    assert fingerprint_differences(actual, {**told, "image_size": 64}) == {"image_size": (32, 64)}


def test_an_episode_ends_as_it_does_without_lerobot_and_the_next_one_does_not_leak(
    make: Callable, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    env = make(2, episode_log=log)
    together = play_experts(env)
    records = {record["seed"]: record for record in map(json.loads, log.read_text().splitlines())}
    for row, seed in enumerate(SEEDS):
        alone = play_alone(seed)
        assert records[seed] == alone
        ended = int(np.argmax(together["done"][:, row]))
        assert ended + 1 == alone["steps"]
        assert together["success"][:, row].tolist() == [False] * ended + [True] * (
            len(together["done"]) - ended
        )
        assert together["reward"][:, row].sum() == pytest.approx(alone["episode_return"], rel=1e-12)
        assert (together["reward"][ended + 1 :, row] == 0).all()
    assert records[SEEDS[0]]["steps"] != records[SEEDS[1]]["steps"], "one of the two must have waited"


def test_the_limit_ends_an_episode_that_is_not_solved(make: Callable, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    env = make(1, episode_length=3, episode_log=log)
    assert env.call("_max_episode_steps") == (3,)
    env.reset(seed=[7], options=NEW)
    ends = [env.step(np.zeros((1, 7), np.float32))[2:4] for _ in range(3)]
    assert [(bool(terminated[0]), bool(truncated[0])) for terminated, truncated in ends] == [
        (False, False),
        (False, False),
        (False, True),
    ]
    assert json.loads(log.read_text())["success"] is False


def test_processes_give_what_one_process_gives(make: Callable) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 2, 7)).astype(np.float32)
    seen = []
    for use_async_envs in (False, True):
        env = make(2, use_async_envs, episode_length=3)
        assert isinstance(env, gymnasium.vector.AsyncVectorEnv) == use_async_envs
        observations = [
            env.reset(seed=list(SEEDS), options=NEW)[0],
            *(env.step(action)[0] for action in actions),
        ]
        seen.append([(o["agent_pos"].copy(), o["pixels"]["agentview"].copy()) for o in observations])
        assert env.call("task_description") == ("lift the red cube off the table",) * 2
        assert np.array_equal(env.call("render")[1], seen[-1][-1][1][1])
    for one, other in zip(*seen, strict=True):
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])


def play_experts(env: Any) -> dict[str, np.ndarray]:
    """Both rows by the expert, as lerobot-eval's loop steps them."""
    from emu_envs.experts import LiftExpert

    experts = [LiftExpert(), LiftExpert()]
    env.reset(seed=list(SEEDS), options=NEW)
    done, told = np.zeros(2, bool), {"done": [], "success": [], "reward": []}
    while not done.all():
        actions = [expert.act(inner) for expert, inner in zip(experts, env.envs, strict=True)]
        _, reward, terminated, truncated, info = env.step(np.stack(actions))
        done = done | terminated | truncated
        for key, value in (("done", done), ("success", info["is_success"]), ("reward", reward)):
            told[key].append(value.copy())
    return {key: np.stack(values) for key, values in told.items()}


def play_alone(seed: int) -> dict[str, Any]:
    """The same episode in the environment that `emu-agent run` plays."""
    from emu_envs.experts import LiftExpert

    env, expert = (
        gymnasium.make("emu_envs:emu/robosuite/Lift", camera_names=["agentview"], image_size=32),
        LiftExpert(),
    )
    env.reset(seed=seed)
    steps, total, ended, info = 0, 0.0, False, {}
    while not ended:
        _, reward, terminated, truncated, info = env.step(expert.act(env))
        steps, total, ended = steps + 1, total + float(reward), terminated or truncated
    env.close()
    return {"seed": seed, "success": info["is_success"], "steps": steps, "episode_return": total}
