"""What does not fit is refused before any work, and the message says what would have been right."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from emu_agent.errors import ConfigError, EmuAgentError, FingerprintError, UnknownNameError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
Make = Callable[..., Any]


def dataset(fps: float = 20, state: int = 5, front: str = "front") -> SimpleNamespace:
    """As much of LeRobot's description of a dataset as building a policy takes."""
    picture = {"dtype": "image", "shape": (32, 32, 3), "names": ["height", "width", "channels"]}
    features = {
        f"observation.images.{front}": picture,
        "observation.images.wrist": picture,
        "observation.state": {"dtype": "float32", "shape": (state,), "names": None},
        "action": {"dtype": "float32", "shape": (3,), "names": None},
    }
    return SimpleNamespace(fps=fps, features=features, stats={}, root="nowhere")


def built(config: Any, meta: SimpleNamespace) -> Any:
    """The policy, built for a dataset."""
    from lerobot.policies.factory import get_policy_class

    return get_policy_class("emu_agent")(config, dataset_meta=meta, dataset_stats=meta.stats)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"phase": "planner"}, UnknownNameError, "action, dida, joint, world"),
        ({"imagine": "sometimes"}, UnknownNameError, "adaptive, always, never"),
        ({"n_action_steps": 5}, ConfigError, "from 1 to chunk_size=4"),
        ({"chunk_size": 9}, ConfigError, "chunk_size=9.*makes chunks of 4.*new_head=true"),
        ({"pretrained_agent": "/nowhere"}, EmuAgentError, "/nowhere does not exist"),
        ({"decoder": "autoregressive", "passes": 2}, ConfigError, "passes=2 is for decoder=dida"),
    ],
)
def test_settings_that_cannot_work(
    make_policy: Make, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_policy(**settings)


def test_normalizers_of_lerobot_must_do_nothing(make_policy: Make) -> None:
    from lerobot.configs import NormalizationMode

    with pytest.raises(ConfigError, match=r"'ACTION': 'MEAN_STD'.*statistics of its own"):
        make_policy(normalization_mapping={"ACTION": NormalizationMode.MEAN_STD})


def test_a_dataset_with_other_features_is_listed_side_by_side(make_config: Make) -> None:
    with pytest.raises(ConfigError) as caught:
        built(make_config(), dataset(state=6, front="top"))
    text = str(caught.value)
    assert "observation.state [5]" in text
    assert "observation.state [6]" in text
    assert """--rename_map='{"observation.images.top": "observation.images.front"}'""" in text
    assert "--policy.new_head=true" in text


def test_a_dataset_of_another_rate_is_refused_unless_the_head_is_new(make_config: Make) -> None:
    with pytest.raises(FingerprintError, match=r"30 frames per second.*trained with 20"):
        built(make_config(), dataset(fps=30))
    tuned = built(make_config(new_head=True), dataset(fps=30)).config
    assert built(tuned, dataset(fps=30)).config.agent["control_hz"] == 30
    with pytest.raises(FingerprintError, match=r"20 frames per second.*trained with 30"):
        built(tuned, dataset(fps=20))


def test_units_that_differ_are_named() -> None:
    from lerobot_policy_emu_agent.features import refuse_other_units

    def check(low: float, high: float, std: float) -> None:
        statistics = {"min": [-1.0, low], "max": [1.0, high], "std": [0.5, std]}
        refuse_other_units("action", [0.0, 0.1], [0.5, 0.5], statistics, ["gripper.pos", "elbow.pos"])

    check(-2.0, 2.0, 0.6)
    with pytest.raises(ConfigError, match=r"elbow.pos: -90 to 90 here, about -1.4 to 1.6 in the checkpoint"):
        check(-90.0, 90.0, 30.0)


def test_a_new_head_takes_the_datasets_sizes_and_statistics(make_config: Make) -> None:
    from lerobot.configs import FeatureType, PolicyFeature

    meta = dataset(state=6)
    values = {"min": [-90.0] * 3, "max": [90.0] * 3, "mean": [10.0] * 3, "std": [30.0] * 3}
    meta.stats = {"action": values, "observation.state": {"mean": [1.0] * 6, "std": [2.0] * 6}}
    config = make_config(new_head=True, chunk_size=6)
    head = built(config, meta).action_head
    assert (head.config.proprio_dim, head.config.chunk_size, head.config.action_limit) == (6, 6, None)
    assert head.action_normalizer.mean.tolist() == [10.0] * 3
    assert head.context_encoder.proprio_normalizer.std.tolist() == [2.0] * 6
    assert config.agent["parts"]["head"]["proprio_dim"] == 6
    assert config.input_features["observation.state"] == PolicyFeature(FeatureType.STATE, (6,))
