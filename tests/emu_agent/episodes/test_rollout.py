import time
from types import ModuleType

import numpy as np
import pytest

from emu_agent.episodes.rollout import EpisodeResult, StepRecord, run_episode
from emu_agent.errors import EmuAgentError


class Notes:
    """Keeps what it is shown, slowly."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.steps: list[StepRecord] = []
        self.pause_s = pause_s

    def __call__(self, step: StepRecord) -> None:
        time.sleep(self.pause_s)
        self.steps.append(step)


def outcome(result: EpisodeResult) -> tuple[bool, int, float]:
    return result.success, result.steps, result.episode_return


def test_a_seed_gives_the_same_episode_in_a_used_and_in_a_fresh_environment(toy_reach: ModuleType) -> None:
    env, policy = toy_reach.make(), toy_reach.ToyPolicy()
    first = [outcome(run_episode(env, policy, seed)) for seed in (1, 2, 3)]
    again = [outcome(run_episode(env, policy, seed)) for seed in (3, 2, 1)]
    fresh = outcome(run_episode(toy_reach.make(), toy_reach.ToyPolicy(), 2))
    assert first == again[::-1]
    assert fresh == first[1]
    assert len(set(first)) == 3


def test_success_steps_and_limits(toy_reach: ModuleType) -> None:
    good = run_episode(toy_reach.make(), toy_reach.ToyPolicy(noise=0.0), 5)
    assert good.success
    assert 1 <= good.steps < 60
    lost = run_episode(toy_reach.make(max_steps=9), toy_reach.ToyPolicy(noise=100.0), 0)
    assert (lost.success, lost.steps) == (False, 9)
    cut = run_episode(toy_reach.make(), toy_reach.ToyPolicy(noise=100.0), 0, max_steps=4)
    assert (cut.success, cut.steps) == (False, 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_action_that_is_no_number_ends_the_episode(value: float, toy_reach: ModuleType) -> None:
    policy = toy_reach.ToyPolicy()
    act = policy.select_action
    policy.select_action = lambda seen: act(seen) * value
    with pytest.raises(EmuAgentError, match="action in step 0 must be finite numbers, but is"):
        run_episode(toy_reach.make(), policy, 1)


def test_the_recorder_sees_every_step_and_the_last_picture(toy_reach: ModuleType) -> None:
    notes = Notes()
    result = run_episode(toy_reach.make(), toy_reach.ToyPolicy(), 1, notes)
    assert [step.index for step in notes.steps] == list(range(result.steps + 1))
    assert [step.action is None for step in notes.steps] == [False] * result.steps + [True]
    assert [step.success for step in notes.steps] == [False] * result.steps + [True]
    assert not np.array_equal(notes.steps[0].pixels["front"], notes.steps[-1].pixels["front"])
    imagined = [step.index for step in notes.steps if "imagine_ms" in step.timing]
    assert imagined == list(range(0, result.steps, 5))
    assert notes.steps[1].imagination is notes.steps[0].imagination is not None


def test_times_are_put_where_they_were_spent(toy_reach: ModuleType) -> None:
    policy = toy_reach.ToyPolicy(delay_s=0.01)
    result = run_episode(toy_reach.make(max_steps=10), policy, 1, Notes(pause_s=0.05))
    timings = result.timings
    assert timings.policy_s >= 0.01 * result.steps
    assert timings.render_s is not None
    assert 0 < timings.render_s < timings.env_s
    assert timings.policy_s + timings.env_s <= result.wall_s
    assert result.wall_s < timings.policy_s + timings.env_s + 0.05 * result.steps  # watching is not counted
    assert timings.imagine_ms == [12.5] * len(range(0, result.steps, 5))


def test_an_environment_that_does_not_count_rendering_is_fine(toy_reach: ModuleType) -> None:
    class Uncounted(toy_reach.ToyReach):
        render_seconds = property(lambda self: (_ for _ in ()).throw(AttributeError()), lambda self, _: None)

        def _observe(self) -> dict:
            pictures = {"front": self._picture(1)}
            return {"pixels": pictures, "agent_pos": np.zeros(4, np.float32)}

    assert run_episode(Uncounted(), toy_reach.ToyPolicy(), 1, max_steps=3).timings.render_s is None
