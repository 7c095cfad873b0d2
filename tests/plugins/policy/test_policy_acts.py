"""Acting through LeRobot's interface, beside the policy that does it without LeRobot."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from emu_agent.errors import ConfigError, FingerprintError
from emu_agent.observation import Observation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
MakePolicy = Callable[..., Any]


def observation(batch: dict[str, Any], row: int) -> Observation:
    """One robot's part of a batch, as emu-agent's own environments give it."""
    pictures = {
        name: (batch[f"observation.images.{key}"][row : row + 1] * 255)
        .round()
        .byte()
        .movedim(1, -1)
        .contiguous()
        for name, key in {"agentview": "front", "wrist": "wrist"}.items()
    }
    return Observation(pictures, batch["observation.state"][row : row + 1], (batch["task"][row],))


def rows(batch: dict[str, Any], *chosen: int) -> dict[str, Any]:
    return {
        key: [value[i] for i in chosen] if key == "task" else value[list(chosen)]
        for key, value in batch.items()
    }


@pytest.mark.parametrize("imagine", ["never", "adaptive", "always"])
def test_every_robot_acts_as_emu_agents_own_policy_does_with_its_seed(
    make_policy: MakePolicy, agent: Path, batch: dict[str, Any], imagine: str
) -> None:
    from emu_policies import ImaginationPolicy
    from lerobot.policies.factory import make_pre_post_processors

    policy = make_policy(imagine=imagine, seed=7)
    before, behind = make_pre_post_processors(policy.config)
    for episode in range(2):
        policy.reset()
        own = [ImaginationPolicy.from_pretrained(agent, imagine=imagine) for _ in range(2)]
        for row, one in enumerate(own):
            one.reset(7 + 2 * episode + row)
        for _ in range(5):
            with torch.inference_mode():
                actions = behind(policy.select_action(before(dict(batch))))
            expected = [one.select_action(observation(batch, row)) for row, one in enumerate(own)]
            assert torch.equal(actions, torch.cat(expected))


def test_an_episode_does_not_depend_on_what_it_is_batched_with(
    make_policy: MakePolicy, batch: dict[str, Any]
) -> None:
    both = make_policy(imagine="always").select_action(batch)
    second = make_policy(imagine="always", seed=1001).select_action(rows(batch, 1))
    assert torch.equal(both[1:], second)


def test_batches_stay_as_they_are_and_need_no_task(make_policy: MakePolicy, batch: dict[str, Any]) -> None:
    copy = {key: value if key == "task" else value.clone() for key, value in batch.items()}
    policy = make_policy()
    policy.select_action(batch)
    assert batch.keys() == copy.keys()
    assert all(torch.equal(batch[key], copy[key]) for key in copy if key != "task")
    policy.reset()
    del batch["task"]
    assert policy.select_action(batch).shape == (2, 3)


def test_weights_and_actions_survive_lerobots_save_and_load(
    make_policy: MakePolicy, batch: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emu_policies import ImaginationPolicy

    policy = make_policy()
    with torch.no_grad():
        policy.head.decoder.position += 0.1  # not what the agent's checkpoint holds
    policy.config.pretrained_agent = str(tmp_path / "gone")
    policy.save_pretrained(tmp_path / "saved")
    again = type(policy).from_pretrained(tmp_path / "saved")
    actions = policy.select_action(batch)
    assert torch.equal(again.select_action(batch), actions)
    own = ImaginationPolicy.from_pretrained(tmp_path / "saved")  # the folder is an agent checkpoint too
    own.reset(policy.config.seed)
    assert torch.equal(own.select_action(observation(batch, 0)), actions[:1])


def test_pictures_of_another_size_are_brought_to_the_models(
    make_policy: MakePolicy, batch: dict[str, Any]
) -> None:
    for key in ("observation.images.front", "observation.images.wrist"):
        batch[key] = torch.nn.functional.interpolate(batch[key], (48, 64))
    assert make_policy().select_action(batch).shape == (2, 3)


def test_what_was_imagined_becomes_a_video(make_policy: MakePolicy, batch: dict[str, Any]) -> None:
    policy = make_policy(imagine="always", save_predicted_video=True)
    latents = []
    for _ in range(5):
        policy.select_action(batch)
        latents.append(policy.last_predicted_latents)
        policy.last_predicted_latents = None
    video = policy.decode_predicted_latents(torch.cat(latents, dim=2))
    assert video.shape == (5, 32, 32, 3)
    assert video.dtype == torch.uint8
    assert torch.equal(video[0], video[1])  # one imagination for the two actions of a chunk


def test_other_environments_and_missing_pictures_are_refused(
    make_policy: MakePolicy, batch: dict[str, Any]
) -> None:
    policy = make_policy()
    with pytest.raises(
        FingerprintError, match=r"embodiment: 'five_cells' here, 'four_cells' in the checkpoint"
    ):
        policy.select_action(
            {**batch, "info": {"fingerprint": {"embodiment": "five_cells", "control_hz": 20}}}
        )
    batch["observation.images.top"] = batch.pop("observation.images.front")
    with pytest.raises(ConfigError, match=r"needs \['observation.images.front'\].*images.top.*--rename_map"):
        policy.select_action(batch)


def test_chunks_continue_the_running_one(make_policy: MakePolicy, batch: dict[str, Any]) -> None:
    from lerobot.policies.rtc.configuration_rtc import RTCConfig

    policy, one = make_policy(), rows(batch, 0)
    policy.config.rtc_config = RTCConfig(execution_horizon=3)
    policy.init_rtc_processor()
    first = policy.predict_action_chunk(one)[0]
    rest = torch.cat([first[2:] + 0.1, torch.zeros(1, 3)])  # LeRobot fills up with zeros
    second = policy.predict_action_chunk(one, inference_delay=1, prev_chunk_left_over=rest)
    assert second.shape == (1, 4, 3)
    torch.testing.assert_close(second[0, 0], rest[0])
    with pytest.raises(ConfigError, match="4 actions, but 9 control steps pass"):
        policy.predict_action_chunk(one, inference_delay=9, prev_chunk_left_over=rest)


def test_warming_up_changes_no_episode(make_policy: MakePolicy, batch: dict[str, Any]) -> None:
    cold, warm = (make_policy(imagine="never") for _ in range(2))
    warm.init_rtc_processor()
    assert warm.config.background_imagination
    assert torch.equal(cold.select_action(batch), warm.select_action(batch))


def test_a_slow_imagination_does_not_hold_up_chunks(
    make_policy: MakePolicy, batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, let_go = make_policy(background_imagination=True), threading.Event()
    imagine = policy.engine.imagine

    def slow(*args: Any, **settings: Any) -> Any:
        assert let_go.wait(60)
        return imagine(*args, **settings)

    monkeypatch.setattr(policy.engine, "imagine", slow)
    never = make_policy(imagine="never")
    for _ in range(3):
        assert torch.equal(policy.predict_action_chunk(batch), never.predict_action_chunk(batch))
    let_go.set()
    for robot in policy._robots:
        robot._background._running.result(60)
    assert not torch.equal(policy.predict_action_chunk(batch), never.predict_action_chunk(batch))
    policy.reset()
