from dataclasses import replace

import pytest
import torch
from emu_policies import ImaginationPolicyConfig
from emu_policies.planning.replan import ActiveSubgoal, ImaginationReason, ReplanConfig

from emu_agent.errors import ConfigError, UnknownNameError

CONFIG = ReplanConfig(done_threshold=0.6, stale_threshold=0.7, confidence_threshold=0.4, max_age=20)
CALM = (0.8, 0.1, 0.1)


def active(
    *rows: tuple[float, float, float], age: int = 4, confidence: tuple[float, ...] | None = None
) -> ActiveSubgoal:
    confidence = confidence or (0.9,) * len(rows)
    return ActiveSubgoal(
        age=age, confidence=torch.tensor(confidence), subtask_probabilities=torch.tensor(rows)
    )


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        (None, ImaginationReason.FIRST),
        (active(CALM), None),
        (active((0.3, 0.65, 0.05)), ImaginationReason.DONE),
        (active((0.3, 0.05, 0.65)), None),
        (active((0.2, 0.05, 0.75)), ImaginationReason.STALE),
        (active(CALM, confidence=(0.3,)), ImaginationReason.LOW_CONFIDENCE),
        (active(CALM, age=19), None),
        (active(CALM, age=20), ImaginationReason.TIMEOUT),
        (active((0.3, 0.65, 0.05), confidence=(0.3,), age=20), ImaginationReason.DONE),
        (active(CALM, (0.3, 0.65, 0.05)), ImaginationReason.DONE),
        (active(CALM, CALM, confidence=(0.9, 0.3)), ImaginationReason.LOW_CONFIDENCE),
    ],
)
def test_adaptive_imagines_for_a_reason(
    situation: ActiveSubgoal | None, reason: ImaginationReason | None
) -> None:
    assert CONFIG.reason(situation) == reason


def test_confidence_can_be_left_out() -> None:
    assert ReplanConfig().reason(active(CALM, confidence=(0.01,))) is None


def test_a_checkpoint_without_confidence_is_not_doubted() -> None:
    unknown = ActiveSubgoal(age=4, confidence=None, subtask_probabilities=torch.tensor([CALM]))
    assert CONFIG.reason(unknown) is None


def test_never_and_always() -> None:
    never, always = (replace(CONFIG, imagine=mode) for mode in ("never", "always"))
    assert [never.reason(None), never.reason(active(CALM, age=99))] == [None, None]
    assert [always.reason(None), always.reason(active(CALM))] == ["first", "every_chunk"]


def test_unknown_mode_is_refused_with_the_choices() -> None:
    with pytest.raises(
        UnknownNameError, match=r"sometimes.*adaptive, always, image, never, oracle, text, wrong"
    ):
        ReplanConfig(imagine="sometimes")


@pytest.mark.parametrize(
    "settings",
    [{"done_threshold": 0.0}, {"stale_threshold": 2.0}, {"confidence_threshold": -3.0}, {"max_age": 0}],
)
def test_thresholds_that_cannot_work_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ReplanConfig(**settings)


def test_a_chunk_of_which_nothing_is_carried_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_action_steps=0 must be at least 1"):
        ImaginationPolicyConfig(n_action_steps=0)
