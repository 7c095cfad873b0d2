"""What metrics need is loaded, or named with the reason why it is not."""

from types import ModuleType

import numpy as np

from emu_agent.evaluation.metrics.objects import COLOURS, Palette
from emu_agent.evaluation.pipeline import ScoreConfig
from emu_agent.evaluation.tools import REMEMBERED, QuickPalette, ToolsConfig, load_tools


def test_a_quick_palette_sees_what_a_palette_sees() -> None:
    generator = np.random.default_rng(0)
    colours = generator.uniform(0, 100, (COLOURS, 3)).astype(np.float32)
    of_object = np.arange(COLOURS) % 2 == 0
    slow = Palette(colours, of_object, 0.01)
    quick = QuickPalette(**vars(slow))
    pictures = generator.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    for picture in [*pictures, *pictures]:
        assert np.array_equal(quick.mask(picture), slow.mask(picture))
    for picture in generator.integers(0, 256, (REMEMBERED + 10, 2, 2, 3)).astype(np.uint8):
        quick.mask(picture)
    assert len(quick._masks) <= REMEMBERED


def test_without_training_episodes_the_rows_are_named(
    tiny_data: ModuleType, scored_world: ModuleType
) -> None:
    facts = scored_world.MemorySource(scored_world.recordings(tiny_data, 2)).facts
    tools, missing = load_tools(facts, ScoreConfig(held_out=1.0), ToolsConfig(perceptual=False))
    assert tools.network is tools.reader is None
    assert tools.motion is not None, "flow needs nothing to be learned"
    named = {one.what: one for one in missing}
    assert named["network"].reason == "perceptual=false"
    assert "inverse_dynamics_error" in named["reader"].metrics
    assert "held_out=1" in named["reader"].reason
    assert "object_permanence" in named["object"].metrics
