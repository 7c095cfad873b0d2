"""LeRobot's tests of processors: those of its policy `act`, on ours, and its check of declared features."""

from typing import Any

import pytest
import tests.processor.test_act_processor as upstream
from lerobot.configs import FeatureType, PipelineFeatureType, PolicyFeature

from tests.conftest import assert_contract_is_typed

FEATURES = {
    PipelineFeatureType.OBSERVATION: {"observation.state": PolicyFeature(FeatureType.STATE, (16,))},
    PipelineFeatureType.ACTION: {"action": PolicyFeature(FeatureType.ACTION, (7,))},
}
TESTS = [
    upstream.test_make_act_processor_basic,
    upstream.test_act_processor_normalization,
    upstream.test_act_processor_without_stats,
    upstream.test_act_processor_save_and_load,
    upstream.test_act_processor_device_placement_preservation,
    upstream.test_act_processor_batch_consistency,
]


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Any:
    from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig
    from lerobot_policy_emu_agent.processor_emu_agent import make_emu_agent_pre_post_processors

    monkeypatch.setattr(upstream, "ACTConfig", EmuAgentConfig)
    monkeypatch.setattr(upstream, "make_act_pre_post_processors", make_emu_agent_pre_post_processors)
    return EmuAgentConfig(device="cpu"), make_emu_agent_pre_post_processors


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.__name__.removeprefix("test_"))
def test_pipelines(ours: Any, test: Any) -> None:
    test()


def test_features_of_the_policys_processors(ours: Any) -> None:
    config, make = ours
    for pipeline in make(config):
        assert_contract_is_typed(pipeline.transform_features(FEATURES))


def test_features_of_the_environments_processors() -> None:
    from lerobot_env_emu_agent import EmuRobosuiteEnvConfig

    for pipeline in EmuRobosuiteEnvConfig().get_env_processors():
        changed = pipeline.transform_features(FEATURES)
        assert_contract_is_typed(changed)
        assert changed == FEATURES
