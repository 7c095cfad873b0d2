"""Arms: what the head is given is what the arm says, and the episode that is played does not notice."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from emu_policies import ActionHead, ImaginationPolicy
from emu_policies.planning.arms import ARMS, Oracle, Wrong
from emu_policies.planning.imagination_policy import ImaginationPolicyConfig

from emu_agent.commands.playing import IMAGINE_MODES
from emu_agent.episodes.environment import expert_of, stateful
from emu_agent.errors import ConfigError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.observation import Observation

SEED = 50_500


@pytest.fixture(scope="module")
def engine() -> ImaginationEngine:
    return ImaginationEngine.from_pretrained()


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    with gymnasium.make("emu_envs:emu/robosuite/Lift", image_size=64) as made:
        yield made


def test_commands_know_every_arm() -> None:
    assert list(IMAGINE_MODES) == list(ARMS)


@pytest.mark.parametrize("arm", ["oracle", "wrong"])
def test_what_cannot_be_copied_is_refused(
    make_head: Callable[..., ActionHead], fakes: ModuleType, arm: str
) -> None:
    policy = ImaginationPolicy(
        fakes.FakeEngine(), make_head(), ImaginationPolicyConfig(imagine=arm, n_action_steps=2)
    )
    with pytest.raises(ConfigError, match="cannot be copied"):
        policy.bind(gymnasium.Env())
    config = ImaginationPolicyConfig(imagine=arm, n_action_steps=2, background=True)
    with pytest.raises(ConfigError, match="background"):
        ImaginationPolicy(fakes.FakeEngine(), make_head(), config)


@pytest.mark.slow
def test_the_oracle_gives_what_the_expert_then_does(engine: ImaginationEngine, env: Any) -> None:
    observation, info = env.reset(seed=SEED)
    oracle = Oracle(engine, "agentview", env)
    oracle.begin(SEED)
    for _ in range(4):
        observation, *_, info = env.step(env.action_space.sample())
    state = stateful(env).get_state()
    scene = engine.observe(Observation.from_gym(observation, info["instruction"]), "agentview")
    given = oracle.imagine(scene, generator=torch.Generator())
    assert np.array_equal(stateful(env).get_state(), state)
    assert given.text == (((info["subtask"],),),)
    expert, before = expert_of(env), info["subtask_index"]
    expert.reset(SEED)
    while info["subtask_index"] == before:
        observation, *_, info = env.step(expert.act(env))
    expected = engine.encode(torch.from_numpy(observation["pixels"]["agentview"])[None])
    assert torch.equal(given.codes[:, 0, 0], expected)
    assert given.features.shape == engine.imagine(scene).features.shape


@pytest.mark.slow
def test_the_wrong_imagination_is_of_the_same_subtask_elsewhere(engine: ImaginationEngine, env: Any) -> None:
    observation, info = env.reset(seed=SEED)
    wrong, state = Wrong(engine, "agentview", env), stateful(env).get_state()
    wrong.begin(SEED)
    scene = engine.observe(Observation.from_gym(observation, info["instruction"]), "agentview")
    given, own = wrong.imagine(scene, generator=torch.Generator()), engine.imagine(scene)
    assert np.array_equal(stateful(env).get_state(), state)
    assert given.text == own.text
    assert not torch.equal(given.codes, own.codes)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["text", "image"])
def test_a_part_is_withheld_from_the_actions_only(engine: ImaginationEngine, env: Any, arm: str) -> None:
    observation, info = env.reset(seed=SEED)
    seen = Observation.from_gym(observation, info["instruction"])
    chunks = {}
    for name in ("adaptive", "never", arm):
        policy = ImaginationPolicy.from_pretrained(imagine=name)
        policy.reset(SEED)
        chunks[name] = policy.predict_action_chunk(seen)
    assert not any(torch.equal(chunks[arm], chunks[name]) for name in ("adaptive", "never"))
