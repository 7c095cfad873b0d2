"""`emu-agent imagine`: what comes after a picture or a request, in words and pictures, with a page."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from omegaconf import DictConfig
from PIL import Image

from emu_agent.commands.imagine_parts import check_settings, open_engine, read_pictures
from emu_agent.config import output_folder
from emu_agent.imagination.imagination import Imagination
from emu_agent.report.story import PAGE_FILE, STORY_FILE, Panel, render_story
from emu_agent.run_folder import frame_name, replacing, write_json, write_text
from emu_agent.tokens.picture import save_picture

SHEET_FILE = "imagination.png"
DEFAULT_STEPS = 3


def main(cfg: DictConfig) -> int:
    """Imagine with the published weights, or with a checkpoint."""
    check_settings(cfg)
    if cfg.weights:
        from emu_agent.commands import imagine_stream

        return imagine_stream.main(cfg)
    return _imagine(cfg)


def _imagine(cfg: DictConfig) -> int:
    """Imagine with a checkpoint; write sheet, frames, texts and page, print the texts."""
    (picture,) = read_pictures(cfg)
    engine = open_engine(cfg)
    context = engine.context(engine.image_tokenizer.encode(picture[None]), [cfg.instruction])
    steps = DEFAULT_STEPS if cfg.steps is None else cfg.steps
    made = engine.imagine(context, steps=steps, candidates=cfg.candidates, seed=cfg.seed)
    frames = made.pixels(engine.image_tokenizer)[0].numpy()
    output = output_folder(cfg)
    _write_sheet(output / SHEET_FILE, picture.numpy(), frames)
    drawn = frames.reshape(-1, *picture.shape)
    for number, frame in enumerate(drawn):
        save_picture(output / frame_name(number), Image.fromarray(frame))
    number = len(drawn)
    while (earlier := output / frame_name(number)).exists():  # of an imagination that had more
        earlier.unlink()
        number += 1
    texts = {"instruction": cfg.instruction, "candidates": _candidates(made)}
    write_json(output / STORY_FILE, texts)
    about = f"checkpoint {cfg.checkpoint or 'in the package'}, seed {cfg.seed}"
    page = render_story(cfg.instruction, about, _rows(made, picture.numpy(), frames))
    write_text(output / PAGE_FILE, page)
    for c, words in enumerate(made.text[0]):
        print(f"candidate {c}: " + " -> ".join(words))
    print(f"{output / SHEET_FILE}: the picture, then one keyframe per step")
    print(f"{output / PAGE_FILE}: the same with the words")
    return 0


def _write_sheet(
    path: Path,
    picture: UInt8[np.ndarray, "height width 3"],
    frames: UInt8[np.ndarray, "candidates steps height width 3"],
) -> None:
    rows = [np.concatenate([picture, *candidate], axis=1) for candidate in frames]
    with replacing(path) as part:
        Image.fromarray(np.concatenate(rows)).save(part, format="png")


def _candidates(made: Imagination) -> list[dict[str, object]]:
    steps = len(made.text[0][0])
    return [
        {
            "steps": list(texts),
            "frames": [frame_name(c * steps + k) for k in range(steps)],
            "text_log_prob": made.text_log_prob[0, c].tolist(),
            "image_log_prob": made.image_log_prob[0, c].tolist(),
        }
        for c, texts in enumerate(made.text[0])
    ]


def _rows(
    made: Imagination,
    picture: UInt8[np.ndarray, "height width 3"],
    frames: UInt8[np.ndarray, "candidates steps height width 3"],
) -> dict[str, list[Panel]]:
    rows = {"Given": [Panel("", Image.fromarray(picture))]}
    for c, (texts, candidate) in enumerate(zip(made.text[0], frames, strict=True)):
        notes = (f"log-probability {value:.2f} per code" for value in made.image_log_prob[0, c].tolist())
        rows[f"Candidate {c}"] = [
            Panel(text, Image.fromarray(frame), note)
            for text, frame, note in zip(texts, candidate, notes, strict=True)
        ]
    return rows
