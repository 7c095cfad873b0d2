import pytest
from emu_policies import ActionHeadConfig
from emu_policies.head.head_config import action_limit

from emu_agent.errors import ConfigError


def test_config_survives_plain_values() -> None:
    config = ActionHeadConfig(kind="regression", dim=96, cameras=["hand", "side"])
    assert ActionHeadConfig.from_dict(config.to_dict()) == config


def test_settings_of_one_square_wrist_camera_are_still_read() -> None:
    config = ActionHeadConfig.from_dict({"wrist_camera": "eye", "wrist_size": 64})
    assert (list(config.cameras), list(config.camera_size), config.camera_dropout) == (["eye"], [64, 64], 0.0)


def test_unknown_setting_is_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"\['chunk'\].*chunk_size"):
        ActionHeadConfig.from_dict({"chunk": 8})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "diffusion"}, "diffusion.*flow.*regression"),
        ({"dim": 100, "num_heads": 6}, "dim=100 .*num_heads=6"),
        ({"camera_size": [0, 32]}, "camera_size=.0, 32. .*height and a width"),
        ({"camera_size": [32]}, "camera_size=.32. must"),
        ({"imagination_dropout": 1.5}, "imagination_dropout=1.5"),
        ({"chunk_size": 0}, "chunk_size=0"),
        ({"action_limit": 0.0}, "action_limit=0.0"),
    ],
)
def test_nonsense_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ActionHeadConfig.from_dict(settings)


def test_only_scaled_actions_have_a_limit() -> None:
    assert action_limit([-1.0, -0.4], [0.7, 1.0]) == 1.0
    assert action_limit([-1.0, -95.0], [0.7, 100.0]) is None
