"""The imagination engine with small random weights; its slow twins read whole sequences instead of caches."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from emu_agent.decoding.sampling import SamplingConfig
from emu_agent.errors import CheckpointError, ConfigError, UnknownNameError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.tokens.action import NUM_FEATURES, ActionBins
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig
from emu_agent.tokens.text import TEXT_FILE
from emu_agent.world_model.checkpoint import bundled_checkpoint, read_config, read_part, write_checkpoint


@pytest.fixture(scope="module")
def engine(tiny_agent: ModuleType) -> ImaginationEngine:
    return tiny_agent.build_engine(ActionBins((-1.0,) * 3, (1.0,) * 3, 8))


def full_pass(engine: ImaginationEngine, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return engine.world_model.hidden_states(torch.tensor([ids]))[0]


def test_shapes_and_words(engine: ImaginationEngine, tiny_agent: ModuleType) -> None:
    made = engine.imagine(tiny_agent.observation(), steps=2, candidates=3, seed=1)
    assert made.codes.shape == (2, 3, 2, 2, 2)
    assert made.features.shape == (2, 3, 5, 24)
    assert made.text_log_prob.shape == made.image_log_prob.shape == (2, 3, 2)
    assert [len(row) for row in made.text] == [3, 3]
    assert all(isinstance(word, str) for row in made.text for words in row for word in words)
    assert made.pixels(engine.image_tokenizer).shape == (2, 3, 2, 32, 32, 3)


def test_a_seed_repeats_and_another_differs(tiny_agent: ModuleType) -> None:
    varied = tiny_agent.build_engine(image=SamplingConfig(temperature=1.0))
    first, again, other = (varied.imagine(tiny_agent.observation(), seed=seed).codes for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_candidates_differ_and_imagining_leaves_the_context_alone(
    engine: ImaginationEngine, tiny_agent: ModuleType
) -> None:
    context = engine.observe(tiny_agent.observation(), "agentview")
    length, keys = context.cache.length, context.cache.keys.clone()
    made = engine.imagine(context, candidates=4, seed=0)
    assert len({tuple(codes.flatten().tolist()) for codes in made.codes[0]}) > 1
    assert context.cache.length == length
    assert torch.equal(context.cache.keys, keys)


@pytest.mark.parametrize("guidance_scale", [None, 3.0])
def test_a_step_that_is_given_is_imagined_as_if_the_model_had_written_it(
    tiny_agent: ModuleType, guidance_scale: float | None
) -> None:
    engine = tiny_agent.build_engine(guidance_scale=guidance_scale)
    context = engine.observe(tiny_agent.observation(), "agentview")
    first = engine.imagine(context, texts=["lift", "the cube now"], steps=2)
    assert [candidates[0][0] for candidates in first.text] == ["lift", "the cube now"]
    keyframes = first.codes[:, 0, 0]
    recorded = engine.features_of(
        context.codes, tiny_agent.observation().instruction, ["lift", "the cube now"], keyframes
    )
    torch.testing.assert_close(first.features[:, 0], recorded, atol=1e-4, rtol=1e-3)
    other = engine.imagine(context, texts=["reach", "the cube now"])
    assert other.text_log_prob[1, 0, 0] == pytest.approx(first.text_log_prob[1, 0, 0].item(), abs=1e-4)
    assert not torch.allclose(other.features[0], first.features[0])
    several = engine.imagine(context, texts=["lift", "the cube now"], candidates=3)
    assert several.text == ((("lift",),) * 3, (("the cube now",),) * 3)


def test_features_of_the_frame_are_those_of_a_full_pass(
    engine: ImaginationEngine, tiny_agent: ModuleType
) -> None:
    seen = tiny_agent.observation()
    context = engine.observe(seen, "agentview")
    for row in range(2):
        prompt = engine.sequence_format.imagine_prompt(seen.instruction[row], context.codes[row])
        positions = engine.sequence_format.visual_positions(prompt)[0].flatten()
        expected = full_pass(engine, prompt)[positions]
        torch.testing.assert_close(context.features[row], expected, atol=1e-5, rtol=1e-4)


def test_features_of_an_imagination_are_those_of_the_same_recorded_step(tiny_agent: ModuleType) -> None:
    seen, compared = tiny_agent.observation(1), 0
    for seed in range(12):
        engine = tiny_agent.build_engine(seed=seed, max_text_tokens=1)
        context = engine.observe(seen, "agentview")
        made = engine.imagine(context)
        text = made.text[0][0][0]
        if not text.isascii() or not text:
            continue  # these random weights wrote half a character, or nothing
        recorded = engine.features_of(context.codes, seen.instruction, [text], made.codes[:, 0, 0])
        torch.testing.assert_close(made.features[:, 0], recorded, atol=1e-4, rtol=1e-3)
        compared += 1
    assert compared >= 2


def test_recorded_features_are_those_of_a_full_pass(
    engine: ImaginationEngine, tiny_agent: ModuleType
) -> None:
    seen = tiny_agent.observation()
    context = engine.observe(seen, "agentview")
    texts, keyframes = ["lift", "the cube now"], context.codes.flip(0)
    features = engine.features_of(context.codes, seen.instruction, texts, keyframes)
    for row in range(2):
        prompt = engine.sequence_format.imagine_prompt(seen.instruction[row], context.codes[row])
        answer = engine.sequence_format.imagine_answer([(texts[row], keyframes[row])])
        hidden = full_pass(engine, prompt + answer)
        words = len(engine.sequence_format.text_tokenizer.encode(texts[row]))
        first = len(prompt) + 1
        torch.testing.assert_close(
            features[row, 0], hidden[first : first + words].mean(0), atol=1e-5, rtol=1e-4
        )
        at = engine.sequence_format.visual_positions(answer)[0].flatten() + len(prompt)
        torch.testing.assert_close(features[row, 1:], hidden[at], atol=1e-5, rtol=1e-4)


def test_guidance_of_one_changes_nothing_and_more_does(tiny_agent: ModuleType) -> None:
    plain, neutral, strong = (tiny_agent.build_engine(guidance_scale=scale) for scale in (None, 1.0, 8.0))
    codes = [e.imagine(tiny_agent.observation(), steps=2).codes for e in (plain, neutral, strong)]
    assert torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[0], codes[2])


def test_simulating_depends_on_the_actions(engine: ImaginationEngine, tiny_agent: ModuleType) -> None:
    codes = engine.observe(tiny_agent.observation(), "agentview").codes
    still, log_prob = engine.simulate(codes, torch.zeros(2, 4, 3))
    moved, _ = engine.simulate(codes, torch.ones(2, 4, 3))
    assert still.shape == codes.shape
    assert (log_prob <= 0).all()
    assert not torch.equal(still, moved)


def test_actions_are_read_as_numbers_where_the_model_has_an_input_for_them(tiny_agent: ModuleType) -> None:
    bins = ActionBins((-1.0,) * 3, (1.0,) * 3, 8)
    engine = tiny_agent.build_engine(bins, action_features=NUM_FEATURES)
    codes = engine.observe(tiny_agent.observation(), "agentview").codes
    still, moved = (engine.simulate(codes, torch.full((2, 4, 3), value))[0] for value in (0.0, 1.0))
    assert torch.equal(still, moved)  # nothing is added before training
    torch.nn.init.normal_(engine.world_model.action_condition[-1].weight)
    still, moved = (engine.simulate(codes, torch.full((2, 4, 3), value))[0] for value in (0.0, 1.0))
    assert not torch.equal(still, moved)


def test_what_cannot_work_is_refused(engine: ImaginationEngine, tiny_agent: ModuleType) -> None:
    with pytest.raises(UnknownNameError, match=r"no camera 'top'|no camera called 'top'"):
        engine.observe(tiny_agent.observation(), "top")
    with pytest.raises(ConfigError, match=r"steps=0 and candidates=1 must be at least 1"):
        engine.imagine(tiny_agent.observation(), steps=0)
    with pytest.raises(ConfigError, match=r"there are 1 texts for 2 observations; give one for each"):
        engine.imagine(tiny_agent.observation(), texts=["lift"])
    with pytest.raises(CheckpointError, match=r"no action bins"):
        tiny_agent.build_engine().simulate(torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 4, 3))
    with pytest.raises(ConfigError, match=r"instruction has \d+ tokens, and at most \d+ fit beside a frame"):
        engine.context(torch.zeros(1, 2, 2, dtype=torch.int64), ["lift the red cube " * 500])
    bigger = ImageTokenizerConfig(**{**tiny_agent.IMAGE.to_dict(), "n_embed": 32})
    with pytest.raises(ConfigError, match=r"the vocabulary has 16 codes .* but the model has 32"):
        ImaginationEngine(ImageTokenizer(bigger), engine.sequence_format, engine.world_model)


COMPILED_AND_NOT = """
import sys
import torch
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import ImaginationConfig

plain, compiled = (
    ImaginationEngine.from_pretrained(config=ImaginationConfig(decoder=sys.argv[1], compile=compile))
    for compile in (False, True)
)
codes = torch.randint(plain.image_tokenizer.num_codes, (1, 8, 8), generator=torch.Generator().manual_seed(0))
made, again = (
    engine.imagine(engine.context(codes, ["lift the red cube off the table"]), steps=2)
    for engine in (plain, compiled)
)
assert made.text == again.text
assert torch.equal(made.codes, again.codes)
torch.testing.assert_close(made.features, again.features, atol=1e-3, rtol=1e-3)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("decoder", ["autoregressive", "dida"])
def test_compiled_steps_imagine_the_same(decoder: str) -> None:
    # In a process of its own: the compiler cannot see through the checks of shapes that tests run with.
    command = [sys.executable, "-c", COMPILED_AND_NOT, decoder]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_that_cannot_imagine_yet_says_so(tmp_path: Path) -> None:
    _, tensors = read_part(bundled_checkpoint(), "image_tokenizer")
    part = {"image_tokenizer": read_config(bundled_checkpoint())["parts"]["image_tokenizer"]}
    folder = write_checkpoint(
        tmp_path / "tokenizer", {"parts": part}, {f"image_tokenizer.{k}": v for k, v in tensors.items()}
    )
    with pytest.raises(CheckpointError, match=r"has no vocabulary; it has the parts \['image_tokenizer'\]"):
        ImaginationEngine.from_pretrained(folder)


def test_a_damaged_text_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(bundled_checkpoint(), folder)
    text = (folder / TEXT_FILE).read_text()
    (folder / TEXT_FILE).write_text(text[: len(text) // 2])
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is no text tokenizer"):
        ImaginationEngine.from_pretrained(folder)
