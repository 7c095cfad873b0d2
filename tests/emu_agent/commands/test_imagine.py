"""`emu-agent imagine` as a person uses it: with the bundled checkpoint and with published weights."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emu_agent.cli import main
from emu_agent.commands.imagine import read_pictures
from emu_agent.config import load_config

SENTENCE = "Reach for the cube."
SMALL = "size=32x48"


class Sources(HTMLParser):
    """Where a page takes its pictures from, and its words."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.words = ""
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    path = tmp_path / "frame.png"
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def imagine(*overrides: object) -> int:
    return main(["imagine", *map(str, overrides)])


def story(folder: Path) -> dict:
    return json.loads((folder / "imagination.json").read_text())


@pytest.mark.slow
def test_the_bundled_checkpoint_leaves_frames_texts_and_a_page(tmp_path: Path, frame: Path) -> None:
    output = tmp_path / "out"
    assert imagine(f"image={frame}", f"output={output}", "steps=1", "candidates=2") == 0
    candidates = story(output)["candidates"]
    assert [len(candidate["steps"]) for candidate in candidates] == [1, 1]
    names = [name for candidate in candidates for name in candidate["frames"]]
    assert len(set(names)) == 2
    for name in names:
        with Image.open(output / name) as picture:
            assert picture.size == (128, 128)
    page = Sources(output / "imagination.html")
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert all(text in page.words for candidate in candidates for text in candidate["steps"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=t2i"], "task=t2i needs weights=FOLDER; a checkpoint knows vla only"),
        (["task=fly"], "no task called 'fly'"),
        (["steps=0"], "steps must be a whole number of at least 1"),
        (["aspect=1:1"], "aspect=1:1 can be set with weights=FOLDER only"),
        (["weights=w", "decoder=dida"], "decoder=dida can be set without weights only"),
        (["weights=w", "candidates=2"], "candidates=2 is for checkpoints"),
        (["image=null"], "a checkpoint looks at one picture, image=FILE, but there are 0"),
        (["image=absent.png"], "there is none of that name"),
        (
            ["weights=w", "task=x2i", "image=null"],
            "task=x2i takes 1 to 3 reference pictures, but there are 0",
        ),
        (["weights=w", "size=500x500"], "both sides must be multiples of 16"),
        (["weights=w"], "w does not exist"),
        (["task=explore"], "task=explore needs weights=FOLDER"),
        (["frame=3"], "frame=3 is for the folder of a dataset"),
        (["guidance_scale=nan"], "guidance_scale must be a number, got nan"),
        (["checkpoint=2024"], "2024 does not exist"),
    ],
)
def test_wrong_use_is_told_in_a_line(
    overrides: list[str], message: str, frame: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = () if any(override.startswith("image=") for override in overrides) else (f"image={frame}",)
    assert imagine(*image, *overrides) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_picture_of_another_size_is_brought_to_the_checkpoints(tmp_path: Path) -> None:
    Image.new("RGB", (64, 32), (200, 0, 0)).save(tmp_path / "small.png")
    (picture,) = read_pictures(load_config("imagine", [f"image={tmp_path / 'small.png'}"]))
    assert picture.shape == (128, 128, 3)
    assert (picture[..., 0] == 200).all()


@pytest.mark.slow
def test_published_weights_stream_steps_and_frames(
    tmp_path: Path, frame: Path, official_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [tmp_path / name for name in ("first", "again")]
    for output in outputs:
        settings = (f"weights={official_folder}", "task=vla", f"image={frame}", f"output={output}", SMALL)
        assert imagine(*settings, "instruction='put the cube in the bin'", "steps=2", "seed=3") == 0
    content = story(outputs[0])
    expected = [{"text": SENTENCE, "picture": f"frames/00{k}.png"} for k in range(2)]
    assert content["steps"] == expected
    assert (content["instruction"], content["task"], content["end"]) == (
        "put the cube in the bin",
        "vla",
        "steps",
    )
    for step in expected:
        first, again = (Image.open(output / step["picture"]) for output in outputs)
        assert first.size == (48, 32)
        assert first.tobytes() == again.tobytes()
    page = Sources(outputs[0] / "imagination.html")
    assert len(page.sources) == 3
    assert page.words.count(SENTENCE) == 2
    out = capsys.readouterr().out
    assert out.index(SENTENCE) < out.index("000.png") < out.index("001.png")


@pytest.mark.slow
def test_published_weights_edit_pictures_and_end(
    tmp_path: Path, frame: Path, ending_official_folder: Path
) -> None:
    other = tmp_path / "other.png"
    Image.new("RGB", (64, 48), "red").save(other)
    output = tmp_path / "out"
    pictures = f"image=[{frame},{other}]"
    assert imagine(f"weights={ending_official_folder}", "task=x2i", pictures, f"output={output}", SMALL) == 0
    assert story(output)["end"] == "steps"
    assert len(Sources(output / "imagination.html").sources) == 3
    settings = ("task=story", f"image={other}", "instruction='a walk'", f"output={output}", SMALL)
    assert imagine(f"weights={ending_official_folder}", *settings) == 0
    content = story(output)
    assert content["end"] == "eos"
    assert content["steps"] == [{"text": SENTENCE, "picture": "frames/000.png"}]


@pytest.mark.slow
def test_a_kill_keeps_the_finished_frames(tmp_path: Path, frame: Path, official_folder: Path) -> None:
    output = tmp_path / "out"
    settings = [f"weights={official_folder}", "task=vla", f"image={frame}", f"output={output}", SMALL]
    command = [sys.executable, "-m", "emu_agent", "imagine", *settings, "steps=100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = (line for line in process.stdout if "frames/" in line)
        assert next(shown).strip().endswith("000.png")
        assert next(shown).strip().endswith("001.png")
        process.kill()
    steps = story(output)["steps"]
    assert len(steps) >= 2
    for step in steps:
        with Image.open(output / step["picture"]) as picture:
            assert picture.size == (48, 32)
    assert len(Sources(output / "imagination.html").sources) >= 3
    assert not [path for path in output.rglob("*.part-*") if path.suffix == ".json"]
