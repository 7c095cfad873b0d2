import pytest

from emu_agent import errors
from emu_agent.errors import EmuAgentError, UnknownNameError, goes_back_to, lookup


def test_lookup_returns_the_entry() -> None:
    assert lookup("preset", "nano", {"nano": 3, "small": 4}) == 3


def test_an_unknown_name_is_answered_with_all_choices_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        lookup("preset", "nanno", {"small": 4, "nano": 3})
    assert str(caught.value) == "no preset called 'nanno'; did you mean 'nano'? there are: nano, small"


def test_a_name_unlike_all_others_gets_no_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="no preset called 'xyz'; there are: nano"):
        lookup("preset", "xyz", {"nano": 3})


def test_all_errors_can_be_caught_as_one() -> None:
    classes = [value for name, value in vars(errors).items() if name.endswith("Error")]
    assert len(classes) == 11
    assert all(issubclass(error, EmuAgentError) for error in classes)


def test_a_circle_of_causes_is_walked_once() -> None:
    first, second, third = ValueError("a"), KeyError("b"), OSError("c")
    first.__cause__, second.__context__, third.__cause__ = second, third, first
    assert list(goes_back_to(first)) == [first, second, third]
    assert list(goes_back_to(first, causes_only=True)) == [first, second]
    assert list(goes_back_to(None)) == []
    group = ExceptionGroup("both", [first, second])
    assert list(goes_back_to(group)) == [group, first, second, third]
