import pytest

from emu_agent.decoding.noise import DidaConfig
from emu_agent.errors import CheckpointError, ConfigError, UnknownNameError
from emu_agent.imagination.imagination import ImaginationConfig


def test_the_checkpoint_chooses_unless_told_otherwise() -> None:
    adapted = DidaConfig(noise="uniform", passes=7)
    assert ImaginationConfig().choose(None)[0] == "autoregressive"
    assert ImaginationConfig().choose(adapted) == ("dida", adapted)
    assert ImaginationConfig(passes=2).choose(adapted)[1] == DidaConfig(noise="uniform", passes=2)
    assert ImaginationConfig(decoder="autoregressive").choose(adapted)[0] == "autoregressive"


def test_dida_needs_an_adapted_checkpoint_or_force() -> None:
    with pytest.raises(CheckpointError, match=r"train stage=dida.*force=true"):
        ImaginationConfig(decoder="dida").choose(None)
    assert ImaginationConfig(decoder="dida", force=True).choose(None) == ("dida", DidaConfig())


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"passes=0 must be at least 1"):
        ImaginationConfig(passes=0)
    with pytest.raises(UnknownNameError, match=r"did you mean 'dida'\? there are: autoregressive, dida"):
        ImaginationConfig(decoder="dido")
    with pytest.raises(ConfigError, match=r"passes=3 is for decoder=dida"):
        ImaginationConfig(decoder="autoregressive", passes=3).choose(DidaConfig())
