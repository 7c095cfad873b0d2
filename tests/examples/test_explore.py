import importlib.util
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from emu_agent.decoding.sampling import GREEDY, SamplingConfig
from emu_agent.decoding.stream import EventReader, Frame, GenerationConfig, TextPiece
from emu_agent.errors import ConfigError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig
from emu_agent.tokens.sequence import ImageGrid, SequenceFormat
from emu_agent.tokens.text import BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.config import TransformerConfig
from emu_agent.world_model.transformer import WorldModel

SPEC = importlib.util.spec_from_file_location(
    "explore", Path(__file__).parents[2] / "examples" / "explore.py"
)
script = sys.modules["explore"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)
SESSION_FILE, Exploration = script.SESSION_FILE, script.Exploration
IMAGE = ImageTokenizerConfig(
    ch=8, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), resolution=32, z_channels=8, embed_dim=8,
    n_embed=16, norm_groups=4, patch_size=8,
)  # fmt: skip
VARIED = GenerationConfig(image=SamplingConfig(temperature=1.0), text=GREEDY, guidance_scale=2.0)


@pytest.fixture(scope="module")
def engine() -> ImaginationEngine:
    torch.manual_seed(0)
    text = BytePairTokenizer.train(["You are a helpful assistant for explore task. USER: 0123456789*"], 280)
    vocabulary = Vocabulary.compact(text.num_text, IMAGE.n_embed, num_action_bins=8)
    shape = TransformerConfig(
        vocab_size=vocabulary.size, hidden_size=24, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=12, max_position_embeddings=512,
        initializer_range=0.3,
    )  # fmt: skip
    return ImaginationEngine(ImageTokenizer(IMAGE), SequenceFormat(vocabulary, text), WorldModel(shape))


def picture(brightness: int = 90) -> torch.Tensor:
    return torch.full((32, 48, 3), brightness, dtype=torch.uint8)


def explore(engine: ImaginationEngine, task: str = "explore", **settings: object) -> Any:
    return Exploration(engine, "a kitchen", [picture()], task=task, config=VARIED, **settings)


def frames(exploration: Any) -> list[bytes]:
    return [view.picture.tobytes() for view in exploration.views]


@pytest.mark.parametrize(("task", "kind"), [("explore", "text"), ("vla", "step")])
def test_a_command_stands_in_the_answer_and_a_frame_follows(
    engine: ImaginationEngine, task: str, kind: str
) -> None:
    exploration = explore(engine, task)
    view = exploration.step("turn left")
    assert (view.command, view.text, view.renewed) == ("turn left", "", False)
    assert view.picture.size == (48, 32)
    reader, ids = EventReader(engine.sequence_format), exploration._stream.ids
    events = [event for token in ids for event in reader.read(token)]
    assert "".join(event.text for event in events[-10:-1]).endswith("turn left")
    assert {event.kind for event in events[-10:-1]} == {kind}
    shown = engine.image_tokenizer.decode(events[-1].codes[None])[0]
    assert view.picture.tobytes() == shown.numpy().tobytes()


def test_a_seed_repeats_and_another_command_leads_elsewhere(engine: ImaginationEngine) -> None:
    runs = []
    for commands, seed in (
        (("left", "on"), 0),
        (("left", "on"), 0),
        (("right", "on"), 0),
        (("left", "on"), 5),
    ):
        exploration = explore(engine, seed=seed)
        for command in commands:
            exploration.step(command)
        runs.append(frames(exploration))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert runs[0] != runs[3]


def test_without_a_command_the_model_goes_on_until_a_frame(engine: ImaginationEngine) -> None:
    exploration = explore(engine, "vla")
    events = list(exploration.events())
    assert isinstance(events[-1], Frame)
    words = "".join(event.text for event in events if isinstance(event, TextPiece))
    assert exploration.views[-1].text == words
    assert len(events) >= 2
    vocabulary, ids = engine.sequence_format.vocabulary, exploration._stream.ids
    written = ids[len(ids) - 1 - ids[::-1].index(vocabulary.bss) + 1 :]
    assert written.index(vocabulary.boi) <= engine.config.max_text_tokens


@pytest.mark.parametrize("turns", [1, 3])
def test_a_saved_exploration_continues_as_if_it_had_not_stopped(
    engine: ImaginationEngine, tmp_path: Path, turns: int
) -> None:
    going = explore(engine)
    for turn in range(turns):
        going.step(f"step {turn}")
    going.save(tmp_path)
    loaded = Exploration.load(engine, tmp_path)
    for _ in range(2):
        assert loaded.step("look back").picture.tobytes() == going.step("look back").picture.tobytes()
    assert frames(loaded) == frames(going)
    assert [view.command for view in loaded.views] == [view.command for view in going.views]
    loaded.save(tmp_path)
    assert len(list((tmp_path / "frames").iterdir())) == turns + 2


def test_a_full_context_is_left_behind_with_the_last_frame(engine: ImaginationEngine, tmp_path: Path) -> None:
    config = replace(VARIED, max_new_tokens=40)
    exploration, again = (Exploration(engine, "a kitchen", [picture()], config=config) for _ in range(2))
    renewed = [exploration.step(f"turn {turn}").renewed for turn in range(6)]
    assert renewed.count(True) >= 2
    assert not renewed[0]
    for turn in range(6):
        again.step(f"turn {turn}")
        again.save(tmp_path)
        again = Exploration.load(engine, tmp_path)
    assert frames(again) == frames(exploration)


def test_exploring_from_words_alone(engine: ImaginationEngine) -> None:
    config = GenerationConfig(text=GREEDY, image=GREEDY, grid=ImageGrid(2, 2))
    exploration = Exploration(engine, "a kitchen", config=config)
    assert exploration.step("go in").picture.size == (32, 32)
    assert exploration.step("go on").picture.size == (32, 32)


def test_a_session_that_does_not_fit_is_refused(engine: ImaginationEngine, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{SESSION_FILE} is missing or no JSON"):
        Exploration.load(engine, tmp_path)
    exploration = explore(engine)
    exploration.step("on")
    exploration.save(tmp_path)
    path = tmp_path / SESSION_FILE
    content = json.loads(path.read_text())
    for changes, message in (
        ({"format_version": 9}, r"it must be \('emu-agent exploration', 1\)"),
        ({"vocabulary_size": 9}, "made by a model with 9 ids; this one has"),
        ({"generator": {**content["generator"], "device": "cuda"}}, "made on device=cuda"),
    ):
        path.write_text(json.dumps({**content, **changes}))
        with pytest.raises(ConfigError, match=message):
            Exploration.load(engine, tmp_path)
    path.write_text(json.dumps(content))
    (tmp_path / "frames" / "000.png").unlink()
    with pytest.raises(ConfigError, match=r"000.png is missing or broken"):
        Exploration.load(engine, tmp_path)


@pytest.mark.slow
def test_the_bundled_checkpoint_explores_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session, frame = tmp_path / "session", tmp_path / "frame.png"
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(frame)
    monkeypatch.setattr(sys, "stdin", io.StringIO("move to the cube\nquit\nnever read\n"))
    script.main([f"--image={frame}", f"--session={session}"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("lift the cube\n"))
    script.main([f"--session={session}"])
    commands = [view["command"] for view in json.loads((session / SESSION_FILE).read_text())["views"]]
    assert commands == ["move to the cube", "lift the cube"]
    assert len(list((session / "frames").iterdir())) == 2
    page = (session / "imagination.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "lift the cube" in page
    assert f"continue with --session {session}" in capsys.readouterr().out
