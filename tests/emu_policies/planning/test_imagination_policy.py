from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from emu_policies import ActionHead, ImaginationPolicy, ImaginationPolicyConfig, SubtaskState

from emu_agent.errors import CheckpointError, ConfigError, UnknownNameError
from emu_agent.observation import Observation

MakePolicy = Callable[..., ImaginationPolicy]


def observation(rows: int = 1, brightness: int = 100, **changes: Any) -> Observation:
    parts = {
        "images": {
            "agentview": torch.full((rows, 32, 32, 3), brightness, dtype=torch.uint8),
            "wrist": torch.full((rows, 32, 32, 3), 50, dtype=torch.uint8),
        },
        "proprio": torch.zeros(rows, 5),
        "instruction": ("lift the cube",) * rows,
    }
    return Observation(**{**parts, **changes})


@pytest.fixture
def make_policy(make_head: Callable[..., ActionHead], fakes: ModuleType) -> MakePolicy:
    def make(
        monitor: SubtaskState = SubtaskState.ACTIVE,
        log_prob: float = -1.0,
        head: dict[str, Any] | None = None,
        **settings: Any,
    ) -> ImaginationPolicy:
        head = make_head(**(head or {}))
        last = head.monitor.classify[-1]
        torch.nn.init.zeros_(last.weight)
        last.bias.data = 5.0 * torch.nn.functional.one_hot(torch.tensor(monitor), len(SubtaskState)).float()
        config = ImaginationPolicyConfig(**{"n_action_steps": 2, **settings})
        return ImaginationPolicy(fakes.FakeEngine(log_prob), head, config, fingerprint={"env": "toy"})

    return make


def reasons(policy: ImaginationPolicy, chunks: int) -> list[str | None]:
    """Why each chunk came with an imagination, or None where it did not."""
    found = []
    for _ in range(chunks):
        policy.predict_action_chunk(observation())
        found.append(policy.imagination_reason if "imagine_ms" in policy.last_timing else None)
    return found


def test_never_acts_without_imagination(make_policy: MakePolicy) -> None:
    policy = make_policy(imagine="never")
    assert reasons(policy, 3) == [None] * 3
    assert policy.imagination is None
    assert policy.imagination_reason is None


def test_a_chunk_goes_on_from_the_rest_of_the_one_before(make_policy: MakePolicy) -> None:
    policy = make_policy(imagine="never")
    rest = torch.tensor([[[0.1, -0.2, 0.3], [0.2, -0.1, 0.4]]])
    chunk = policy.continue_chunk(observation(), rest, delay=1)
    torch.testing.assert_close(chunk[:, 0], rest[:, 0])  # it will have been carried out
    policy.reset(0)
    free = policy.predict_action_chunk(observation())
    policy.reset(0)
    late = policy.continue_chunk(observation(), rest, delay=50)  # longer than a chunk
    assert late.shape == free.shape
    torch.testing.assert_close(late[:, :2], rest)


def test_always_imagines_with_every_chunk(make_policy: MakePolicy) -> None:
    assert reasons(make_policy(imagine="always"), 3) == ["first", "every_chunk", "every_chunk"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["first", None, None, None]),
        ({"monitor": SubtaskState.DONE}, ["first", "done", "done", "done"]),
        ({"monitor": SubtaskState.STALE}, ["first", "stale", "stale", "stale"]),
        ({"max_age": 4}, ["first", None, "timeout", None]),
    ],
)
def test_adaptive_imagines_for_a_reason(
    make_policy: MakePolicy, settings: dict[str, Any], expected: list[str | None]
) -> None:
    assert reasons(make_policy(imagine="adaptive", **settings), 4) == expected


def test_select_action_serves_the_beginning_of_each_chunk(make_policy: MakePolicy) -> None:
    served, predicted = make_policy(), make_policy()
    actions = torch.stack([served.select_action(observation(2)) for _ in range(4)], dim=1)
    chunks = [predicted.predict_action_chunk(observation(2)) for _ in range(2)]
    assert chunks[0].shape == (2, 4, 3)
    assert torch.equal(actions, torch.cat([chunk[:, :2] for chunk in chunks], dim=1))


def test_timing_tells_only_what_happened_in_the_call(make_policy: MakePolicy) -> None:
    policy = make_policy()
    timings = []
    for _ in range(3):
        policy.select_action(observation())
        timings.append(set(policy.last_timing))
    assert timings == [{"imagine_ms", "chunk_ms"}, set(), {"chunk_ms"}]


def test_same_seed_same_actions_whatever_ran_before(make_policy: MakePolicy) -> None:
    policy = make_policy(imagine="always")

    def actions(seed: int) -> torch.Tensor:
        policy.reset(seed)
        return torch.stack([policy.select_action(observation()) for _ in range(5)])

    first, other, again = actions(3), actions(4), actions(3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_policy_sees_and_imagines(make_policy: MakePolicy) -> None:
    def chunk(brightness: int, imagine: str) -> torch.Tensor:
        return make_policy(imagine=imagine).predict_action_chunk(observation(brightness=brightness))

    assert not torch.allclose(chunk(20, "never"), chunk(200, "never"))
    assert not torch.allclose(chunk(20, "never"), chunk(20, "always"))


def test_reset_forgets_the_episode(make_policy: MakePolicy) -> None:
    policy = make_policy()
    policy.select_action(observation())
    policy.reset(0)
    assert (policy.imagination, policy.imagination_reason, policy.last_timing) == (None, None, {})
    policy.select_action(observation(brightness=10))
    assert policy.last_timing.keys() == {"imagine_ms", "chunk_ms"}


def test_a_missing_camera_is_named_beside_those_there_are(make_policy: MakePolicy) -> None:
    images = {"front": torch.zeros(1, 32, 32, 3, dtype=torch.uint8)}
    with pytest.raises(UnknownNameError, match=r"agentview.*front"):
        make_policy().select_action(observation(images=images))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"proprio": torch.zeros(1, 7)}, "7 entries.*trained with 5"), ({"rows": 2}, "2 rows.*has 1.*reset")],
)
def test_other_sizes_are_refused(make_policy: MakePolicy, changes: dict[str, Any], message: str) -> None:
    policy = make_policy()
    policy.predict_action_chunk(observation())
    with pytest.raises(ConfigError, match=message):
        policy.predict_action_chunk(observation(**changes))


def test_images_of_other_sizes_are_brought_to_those_of_the_training(make_policy: MakePolicy) -> None:
    images = observation().images
    larger = {**images, "wrist": torch.full((1, 48, 64, 3), 50, dtype=torch.uint8)}
    same = make_policy().select_action(observation(images=larger))
    assert torch.equal(same, make_policy().select_action(observation()))


def test_a_camera_can_be_missing_where_training_dropped_it(make_policy: MakePolicy) -> None:
    only = {"agentview": observation().images["agentview"]}
    with pytest.raises(UnknownNameError, match="wrist"):
        make_policy().select_action(observation(images=only))
    without = make_policy(head={"camera_dropout": 0.2}).select_action(observation(images=only))
    assert not torch.equal(without, make_policy(head={"camera_dropout": 0.2}).select_action(observation()))
    blind = make_policy(head={"cameras": ()}).select_action(observation(images=only))
    assert torch.equal(blind, make_policy(head={"cameras": ()}).select_action(observation()))


def test_the_head_of_the_environments_embodiment_acts(make_head: Any, fakes: ModuleType) -> None:
    config = ImaginationPolicyConfig(imagine="never", n_action_steps=2)
    heads = {"panda": make_head(), "sawyer": make_head(action_dim=4)}
    policy = ImaginationPolicy(fakes.FakeEngine(), heads, config)
    assert policy.select_action(observation()).shape == (1, 3)
    policy.reset(0)
    assert policy.select_action(observation(embodiment="sawyer")).shape == (1, 4)
    policy.bind(SimpleNamespace(unwrapped=SimpleNamespace(embodiment="panda")))
    policy.reset(0)
    assert policy.select_action(observation()).shape == (1, 3)
    with pytest.raises(CheckpointError, match=r"'so101'.*heads for \['panda', 'sawyer'\]"):
        policy.use_embodiment("so101")


def test_settings_that_cannot_work_are_refused(make_policy: MakePolicy) -> None:
    with pytest.raises(
        UnknownNameError, match=r"sometimes.*adaptive, always, image, never, oracle, text, wrong"
    ):
        make_policy(imagine="sometimes")
    with pytest.raises(ConfigError, match=r"n_action_steps=5 .*chunk_size=4"):
        make_policy(n_action_steps=5)
    with pytest.raises(ConfigError, match=r"horizon.*n_action_steps"):
        ImaginationPolicyConfig.from_dict({"horizon": 3})
