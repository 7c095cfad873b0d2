"""Environments that a checkpoint was not made for are refused, with both values of what differs."""

from types import ModuleType

import pytest

from emu_agent.errors import FingerprintError
from emu_agent.fingerprint import fingerprint_differences, refuse_other_environment


def test_fingerprints_agree_after_a_journey_through_json(toy_reach: ModuleType) -> None:
    own = toy_reach.ToyReach().fingerprint()
    as_tuple = {**own, "camera_names": ("front", "wrist"), "gl": "egl"}
    assert fingerprint_differences(as_tuple, own) == {}
    assert fingerprint_differences(own, None) == {}
    refuse_other_environment({})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("embodiment", "other"),
        ("controller", "other"),
        ("camera_names", ["front"]),
        ("image_size", 64),
        ("render_preset", {}),
        ("control_hz", 10),
    ],
)
def test_a_foreign_environment_is_refused_with_both_values(
    toy_reach: ModuleType, key: str, value: object
) -> None:
    own = toy_reach.ToyReach().fingerprint()
    differences = fingerprint_differences(own, {**own, key: value})
    assert differences == {key: (own[key], value)}
    with pytest.raises(FingerprintError) as caught:
        refuse_other_environment(differences)
    assert f"{key}: {own[key]!r} here, {value!r} in the checkpoint" in str(caught.value)
    assert "allow_fingerprint_mismatch=true" in str(caught.value)
