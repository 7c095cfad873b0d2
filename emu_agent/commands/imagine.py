"""`emu-agent imagine`: what comes after a picture or a request, in words and pictures, with a page."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from omegaconf import DictConfig, ListConfig
from PIL import Image
from torch import Tensor

from emu_agent.config import check_counts, check_seed, output_folder
from emu_agent.data.frames import load_frames
from emu_agent.decoding.stream import End, Frame, TextPiece, TokenStream, read_events
from emu_agent.errors import ConfigError, lookup
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import Imagination, ImaginationConfig
from emu_agent.observation import fitted
from emu_agent.official.presets import generation_settings, task_preset
from emu_agent.official.prompting import begin, check_references
from emu_agent.report.story import PAGE_FILE, STORY_FILE, Panel, StoryWriter, render_story
from emu_agent.run_folder import frame_name, replacing, write_json, write_text
from emu_agent.tokens.picture import open_picture, save_picture
from emu_agent.world_model.arithmetic import TYPES, matrix_type
from emu_agent.world_model.checkpoint import bundled_checkpoint, read_config

SHEET_FILE = "imagination.png"
DEFAULT_STEPS = 3
PUBLISHED_ONLY = ("size", "aspect", "max_new_tokens", "dtype", "device", "device_map", "quantize")
"""Settings that say nothing to a checkpoint of this project."""
CHECKPOINT_ONLY = ("decoder", "passes")
"""Settings that say nothing to the stream of the published model."""
DEFAULT_CAMERA = "agentview"


def main(cfg: DictConfig) -> int:
    """Imagine with the published weights, or with a checkpoint."""
    check_settings(cfg)
    return _stream(cfg) if cfg.weights else _imagine(cfg)


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


def check_settings(cfg: DictConfig) -> None:
    """Refuse settings that would be ignored, before anything is loaded.

    Raises:
        ConfigError: there is one.
    """
    foreign = CHECKPOINT_ONLY if cfg.weights else PUBLISHED_ONLY
    if given := [key for key in foreign if cfg[key] is not None]:
        wanted = "without weights" if cfg.weights else "with weights=FOLDER"
        raise ConfigError(f"{given[0]}={cfg[given[0]]} can be set {wanted} only")
    if cfg.steps is not None and not (isinstance(cfg.steps, int) and cfg.steps >= 1):
        raise ConfigError(f"steps must be a whole number of at least 1, got {cfg.steps!r}")
    check_counts(cfg, "candidates")
    check_seed(cfg.seed)
    output_folder(cfg)
    task_preset(cfg.task)
    if not cfg.weights and cfg.task != "vla":
        raise ConfigError(f"task={cfg.task} needs weights=FOLDER; a checkpoint knows vla only")
    if cfg.weights and cfg.candidates != 1:
        raise ConfigError(f"candidates={cfg.candidates} is for checkpoints; with weights= it must be 1")


def open_engine(cfg: DictConfig) -> ImaginationEngine:
    """The published model of `weights`, or the checkpoint."""
    if not cfg.weights:
        settings = {key: cfg[key] for key in ("guidance_scale", "decoder", "passes", "force")}
        return ImaginationEngine.from_pretrained(checkpoint_folder(cfg), ImaginationConfig(**settings))
    from emu_agent.official.assembly import official_engine

    loading = {key: cfg[key] for key in ("device", "device_map", "quantize") if cfg[key] is not None}
    if cfg.dtype is not None:
        name = matrix_type("auto", cfg.device or "cpu") if cfg.dtype == "auto" else cfg.dtype
        loading["dtype"] = lookup("dtype", name, TYPES)
    return official_engine(cfg.weights, image_tokenizer=cfg.image_tokenizer, task=cfg.task, **loading)


def checkpoint_folder(cfg: DictConfig) -> Path:
    """Folder of the checkpoint that imagines."""
    return Path(cfg.checkpoint) if cfg.checkpoint else bundled_checkpoint()


def read_pictures(cfg: DictConfig) -> list[UInt8[Tensor, "_ _ 3"]]:
    """The pictures that `image` names, for a checkpoint brought to the size that it was trained on.

    Raises:
        ConfigError: one cannot be read.
    """
    given = [] if cfg.image is None else list(cfg.image) if isinstance(cfg.image, ListConfig) else [cfg.image]
    if cfg.weights:
        return [read_picture(Path(str(one)), cfg.frame, cfg.camera or DEFAULT_CAMERA) for one in given]
    meta = read_config(checkpoint_folder(cfg))
    if len(given) != 1:
        raise ConfigError(f"a checkpoint looks at one picture, image=FILE, but there are {len(given)}")
    camera = cfg.camera or meta["camera"]
    picture = read_picture(Path(str(given[0])), cfg.frame, camera)
    return [fitted(picture[None], tuple(meta["image_size"]), meta.get("fit", "resize"))[0]]


def read_picture(path: Path, frame: int, camera: str) -> UInt8[Tensor, "height width 3"]:
    """Read a picture file, or one frame of a dataset folder.

    Raises:
        ConfigError: no such file or frame, or no picture.
    """
    if path.is_dir():
        pictures = load_frames(path, [camera]).images[camera]
        if not 0 <= frame < len(pictures):
            raise ConfigError(f"frame={frame} must lie in 0..{len(pictures) - 1}, the frames of {path}")
        pixels = torch.from_numpy(np.array(pictures[frame]))
    else:
        if frame:
            raise ConfigError(f"frame={frame} is for the folder of a dataset, and image={path} is none")
        pixels = open_picture(path)
    return pixels


def _stream(cfg: DictConfig) -> int:
    """Ask the published model; print text as it comes and write pictures as they finish."""
    pictures = read_pictures(cfg)
    preset = task_preset(cfg.task)
    check_references(cfg.task, preset, len(pictures))
    wanted = {key: cfg[key] for key in ("size", "aspect", "guidance_scale", "max_new_tokens")}
    config = generation_settings(preset, len(pictures), **wanted)
    engine = open_engine(cfg)
    codes = [engine.image_tokenizer.encode(picture[None].to(engine.device))[0].cpu() for picture in pictures]
    generator = torch.Generator(engine.device).manual_seed(cfg.seed)
    stream = begin(engine, cfg.task, cfg.instruction, codes, config, generator)
    about = {"instruction": cfg.instruction, "task": cfg.task, "weights": str(cfg.weights), "seed": cfg.seed}
    with StoryWriter(
        Path(cfg.output), about, [Image.fromarray(picture.numpy()) for picture in pictures]
    ) as writer:
        _follow(stream, engine, writer, cfg.steps or preset.pictures)
    print(f"{Path(cfg.output) / PAGE_FILE}: words and pictures")
    return 0


def _follow(
    stream: TokenStream, engine: ImaginationEngine, writer: StoryWriter, pictures: int | None
) -> None:
    """Follow the stream to its end, or to the last picture that is wanted."""
    count = 0
    for event in read_events(stream, engine.sequence_format):
        match event:
            case TextPiece():
                print(event.text, end="", flush=True)
                writer.text(event)
            case Frame():
                count += 1
                pixels = engine.image_tokenizer.decode(event.codes[None].to(engine.device))[0]
                print(f"\n{writer.picture(Image.fromarray(pixels.cpu().numpy()))}", flush=True)
                if count == pictures:
                    writer.end = "steps"
                    return
            case End():
                print()
                writer.end = event.reason
