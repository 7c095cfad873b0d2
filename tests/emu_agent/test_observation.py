import numpy as np
import pytest
import torch

from emu_agent.errors import ConfigError, UnknownNameError
from emu_agent.observation import Observation, fitted, unfitted


def gym_observation(*batch: int) -> dict:
    random = np.random.default_rng(0)
    return {
        "pixels": {
            "agentview": random.integers(0, 256, (*batch, 8, 12, 3), dtype=np.uint8),
            "wrist": random.integers(0, 256, (*batch, 4, 4, 3), dtype=np.uint8),
        },
        "agent_pos": random.normal(size=(*batch, 5)),
    }


def test_a_single_environment_becomes_a_batch_of_one() -> None:
    raw = gym_observation()
    observation = Observation.from_gym(raw, "lift the cube")
    assert observation.instruction == ("lift the cube",)
    assert observation.batch_size == 1
    assert observation.proprio.shape == (1, 5)
    assert observation.proprio.dtype == torch.float32
    assert np.array_equal(observation.images["agentview"][0].numpy(), raw["pixels"]["agentview"])


def test_one_instruction_serves_a_whole_batch() -> None:
    assert Observation.from_gym(gym_observation(3), "lift").instruction == ("lift",) * 3


def test_instructions_are_kept_in_order() -> None:
    assert Observation.from_gym(gym_observation(2), ["lift", "push"]).instruction == ("lift", "push")


def test_a_wrong_number_of_instructions_is_refused() -> None:
    with pytest.raises(ConfigError, match="one entry per instruction"):
        Observation.from_gym(gym_observation(2), ["lift"])


def test_the_observation_survives_a_renderer_that_reuses_its_buffer() -> None:
    raw = gym_observation()
    observation = Observation.from_gym(raw, "lift")
    before = observation.images["wrist"].clone(), observation.proprio.clone()
    raw["pixels"]["wrist"][:] = 0
    raw["agent_pos"][:] = 0
    assert torch.equal(observation.images["wrist"], before[0])
    assert torch.equal(observation.proprio, before[1])


def test_flipped_and_read_only_pictures_are_read() -> None:
    raw = gym_observation()
    flipped = raw["pixels"]["agentview"][::-1]
    flipped.setflags(write=False)
    observation = Observation.from_gym(raw | {"pixels": {"agentview": flipped}}, "lift")
    assert np.array_equal(observation.images["agentview"][0].numpy(), flipped)


def test_pictures_must_be_bytes_channels_last() -> None:
    raw = gym_observation()
    raw["pixels"]["wrist"] = raw["pixels"]["wrist"] / 255.0
    with pytest.raises(ConfigError, match="'wrist' must give bytes"):
        Observation.from_gym(raw, "lift")


def test_without_cameras_there_are_no_images() -> None:
    raw = gym_observation()
    del raw["pixels"]
    assert Observation.from_gym(raw, "lift").images == {}


def test_missing_keys_are_named() -> None:
    with pytest.raises(ConfigError, match="agent_pos"):
        Observation.from_gym({"pixels": {}}, "lift")
    with pytest.raises(ConfigError, match="task"):
        Observation.from_lerobot({"observation.state": torch.zeros(1, 5)})


@pytest.mark.parametrize("as_float", [True, False])
def test_lerobot_and_gymnasium_give_the_same_observation(as_float: bool) -> None:
    raw = gym_observation(2)
    expected = Observation.from_gym(raw, ["lift", "push"])
    batch = {"observation.state": expected.proprio, "task": ["lift", "push"], "action": torch.zeros(2, 7)}
    for camera, image in expected.images.items():
        picture = image.movedim(-1, 1)
        batch[f"observation.images.{camera}"] = picture / 255 if as_float else picture
    observation = Observation.from_lerobot(batch)
    assert observation.instruction == expected.instruction
    assert torch.equal(observation.proprio, expected.proprio)
    assert observation.images.keys() == expected.images.keys()
    assert all(torch.equal(observation.images[camera], image) for camera, image in expected.images.items())


def test_moving_keeps_everything() -> None:
    observation = Observation.from_gym(gym_observation(2), "lift")
    moved = observation.to("meta")
    assert {image.device.type for image in moved.images.values()} | {moved.proprio.device.type} == {"meta"}
    assert moved.instruction == observation.instruction


def test_resizing_keeps_what_is_where() -> None:
    picture = torch.zeros(1, 16, 24, 3, dtype=torch.uint8)
    picture[:, 8:, 12:] = 200  # the lower right quarter
    small = fitted(picture, (8, 8))
    assert small.shape == (1, 8, 8, 3)
    assert (small[:, 6:, 6:] == 200).all()
    assert (small[:, :2] == 0).all()
    assert (small[:, :, :2] == 0).all()
    assert fitted(small, (8, 8)) is small


def test_a_letterbox_keeps_proportions_and_comes_off_again() -> None:
    picture = torch.full((1, 24, 32, 3), 90, dtype=torch.uint8)
    boxed = fitted(picture, (16, 16), "letterbox")
    assert (boxed[:, 2:14] == 90).all()  # 12 of 16 rows
    assert not boxed[:, :2].any()
    assert not boxed[:, 14:].any()
    assert torch.equal(unfitted(boxed, (24, 32), "letterbox"), picture)
    assert torch.equal(unfitted(fitted(picture, (16, 16)), (24, 32)), picture)
    with pytest.raises(UnknownNameError, match=r"crop.*letterbox, resize"):
        fitted(picture, (16, 16), "crop")


@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-1.0, 1.0), (-2.1, 2.6), (0.0, float("nan"))])
def test_colours_of_another_range_are_refused(low: float, high: float) -> None:
    picture = torch.tensor([low, high] * 24).reshape(1, 3, 4, 4)
    batch = {"observation.images.a": picture, "observation.state": torch.zeros(1, 2), "task": ["x"]}
    with pytest.raises(ConfigError, match="must have real numbers from 0 to 1, or bytes"):
        Observation.from_lerobot(batch)
    batch["observation.images.a"] = torch.full((1, 3, 4, 4), 200)
    with pytest.raises(ConfigError, match="must give bytes"):
        Observation.from_lerobot(batch)
