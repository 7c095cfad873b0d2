"""The type in which matrices are multiplied follows what was measured, and says what it costs."""

import logging

import pytest
import torch

from emu_agent.errors import UnknownNameError
from emu_agent.world_model import arithmetic
from emu_agent.world_model.arithmetic import bfloat16_speed, matrix_type, multiplying


@pytest.mark.parametrize(("speed", "chosen"), [(8.0, "bfloat16"), (1.1, "float32"), (0.01, "float32")])
def test_auto_takes_bfloat16_where_it_is_worth_it(
    monkeypatch: pytest.MonkeyPatch, speed: float, chosen: str
) -> None:
    monkeypatch.setattr(arithmetic, "bfloat16_speed", lambda: speed)
    assert matrix_type("auto", "cpu") == chosen
    assert matrix_type("auto", "cuda") == "bfloat16"
    assert matrix_type("float32", "cpu") == "float32"


def test_a_slow_type_is_taken_with_a_warning_that_names_the_factor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arithmetic, "bfloat16_speed", lambda: 0.01)
    with caplog.at_level(logging.WARNING):
        assert matrix_type("bfloat16", "cpu") == "bfloat16"
    assert "100 times slower" in caplog.text


def test_the_speed_is_measured_once() -> None:
    bfloat16_speed.cache_clear()
    assert bfloat16_speed() == bfloat16_speed() > 0


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"bfloat61.*bfloat16"):
        matrix_type("bfloat61", "cpu")


def test_products_are_near_and_weights_stay_as_they_are() -> None:
    layer, x = torch.nn.Linear(64, 64), torch.randn(8, 64)
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with multiplying(name, "cpu"):
            product = layer(x)
        assert product.dtype == dtype
        assert layer.weight.dtype == torch.float32
        torch.testing.assert_close(product.float(), layer(x), atol=0.05, rtol=0.05)
