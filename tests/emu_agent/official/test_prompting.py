from types import ModuleType

import pytest
import torch

from emu_agent.decoding.stream import GenerationConfig
from emu_agent.errors import ConfigError, UnknownNameError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.official.presets import TASK_PRESETS
from emu_agent.official.prompting import begin
from emu_agent.tokens.sequence import ImageGrid


@pytest.fixture(scope="module")
def engine(tiny_agent: ModuleType) -> ImaginationEngine:
    return tiny_agent.build_engine()


def test_a_task_takes_so_many_references_and_no_more(engine: ImaginationEngine) -> None:
    codes = torch.zeros(2, 2, dtype=torch.int64)
    counts = {"t2i": [0], "x2i": [1, 2, 3], "howto": [0, 1], "story": [0, 1], "explore": [0, 1], "vla": [1]}
    assert set(counts) == set(TASK_PRESETS)
    for task, allowed in counts.items():
        for count in range(5):
            config = GenerationConfig(max_new_tokens=30, grid=ImageGrid(2, 2))
            if count in allowed:
                begin(engine, task, "q", [codes] * count, config)
            else:
                with pytest.raises(ConfigError, match=rf"task={task} takes .* but there are {count}"):
                    begin(engine, task, "q", [codes] * count, config)
    with pytest.raises(UnknownNameError, match="no task called 'fly'"):
        begin(engine, "fly", "q")


def test_no_room_for_a_frame_is_said_at_once(engine: ImaginationEngine) -> None:
    with pytest.raises(ConfigError, match=r"a picture of 64\*64 codes takes 4167 tokens, but only"):
        begin(engine, "t2i", "a cat", config=GenerationConfig(grid=ImageGrid(64, 64)))
    with pytest.raises(ConfigError, match=r"and the model reads at most 512"):
        begin(engine, "t2i", "a cat " * 300)
