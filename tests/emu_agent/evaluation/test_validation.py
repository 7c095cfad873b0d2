"""Scores of imaginations with known answers: engines that are perfect, that repeat, or that say nonsense."""

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from emu_agent.data.frames import Frames
from emu_agent.data.plans import Plans
from emu_agent.evaluation.pictures import PSNR_CEILING_DB
from emu_agent.evaluation.validation import score_imagination, score_simulation
from emu_agent.imagination.engine import ImaginationEngine


class Pictures:
    """A tokenizer whose codes are places in a dataset: nothing is lost."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = torch.from_numpy(pictures)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self.pictures[codes[:, 0, 0]]


class Oracle(ImaginationEngine):
    """Answers with the frame and the words that a table gives for the frame it sees."""

    def __init__(self, pictures: np.ndarray, keyframes: dict[int, int], texts: dict[int, str]) -> None:
        self.image_tokenizer, self.keyframes, self.texts = Pictures(pictures), keyframes, texts

    def context(self, codes: torch.Tensor, instructions: list[str]) -> torch.Tensor:
        return codes

    def imagine(self, context: torch.Tensor) -> Any:
        seen = context[:, 0, 0].tolist()
        codes = torch.tensor([self.keyframes[frame] for frame in seen])[:, None, None]
        return SimpleNamespace(
            text=tuple(((self.texts[frame],),) for frame in seen),
            pixels=lambda tokenizer: tokenizer.decode(codes)[:, None, None],
            image_log_prob=torch.full((len(seen), 1, 1), -0.25),
        )

    def simulate(
        self, codes: torch.Tensor, actions: torch.Tensor, embodiment: str | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wanted = torch.tensor([self.keyframes[frame] for frame in codes[:, 0, 0].tolist()])
        return wanted[:, None, None], torch.zeros(len(codes))


@pytest.fixture(scope="module")
def world(tiny_data: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Frames:
    return tiny_data.frames(tmp_path_factory.mktemp("cache"), [tiny_data.demonstration(s) for s in range(2)])


def scored(frames: Frames, keyframes: dict[int, int] | None, right: float = 1.0) -> dict[str, float]:
    """Figures of an oracle; without keyframes they are the true ones, and a share of its texts is right."""
    wanted = Plans(frames, range(2), 1)
    true = {plan.frame: plan.steps[0].keyframe for plan in wanted}
    texts = {plan.frame: plan.steps[0].text for plan in wanted}
    wrong = [plan.frame for plan in wanted][: round((1 - right) * len(wanted))]
    engine = Oracle(frames.images["front"], keyframes or true, texts | dict.fromkeys(wrong, "go home"))
    codes = torch.arange(len(frames))[:, None, None]
    return score_imagination(engine, frames, codes, wanted, frames.images["front"])


def test_perfect_imaginations_have_perfect_scores(world: Frames) -> None:
    figures = scored(world, None)
    assert figures["step_accuracy"] == 1.0
    assert figures["keyframe_psnr"] == figures["region_psnr"] == PSNR_CEILING_DB
    assert figures["keyframe_ssim"] == pytest.approx(1.0)
    assert figures["image_log_prob"] == pytest.approx(-0.25)
    assert figures["pictures"] == len(world) - world.num_episodes  # an episode's last frame is its keyframe


def test_repeating_the_frame_gains_nothing(world: Frames) -> None:
    figures = scored(world, {frame: frame for frame in range(len(world))})
    assert figures["region_gain_db"] == 0.0
    assert figures["keyframe_psnr"] == figures["repeat_psnr"] < PSNR_CEILING_DB
    assert figures["region_psnr"] == figures["repeat_region_psnr"]
    assert figures["region_psnr"] < figures["keyframe_psnr"]


def test_wrong_words_are_counted(world: Frames) -> None:
    assert scored(world, None, right=0.5)["step_accuracy"] == pytest.approx(0.5, abs=0.03)
    assert scored(world, None, right=0.0)["step_accuracy"] == 0.0


def test_an_error_of_known_size_has_its_psnr(world: Frames) -> None:
    frames = world.images["front"].copy()
    off = np.concatenate([frames, np.clip(frames.astype(int) + 5, 0, 255).astype(np.uint8)])
    assert off.max() <= 250
    starts = np.arange(3)
    later = {start: len(frames) + start + 2 for start in range(3)}
    codes = torch.arange(len(world))[:, None, None]
    figures = score_simulation(Oracle(off, later, {}), world, codes, starts, 2, frames)
    assert figures["simulate_keyframe_psnr"] == pytest.approx(20 * np.log10(255 / 5), abs=1e-6)
