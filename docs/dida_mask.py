"""Draws docs/dida_mask.png: the mask of a DiDA training sequence, made by the code that trains.

Run `python docs/dida_mask.py`.
"""

from pathlib import Path

import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.dida_mask import CLEAN, DidaLayout, dense_mask, dida_layout, image_spans

VOCABULARY = Vocabulary.compact(num_text=20, num_codes=64)
KINDS = {
    "clean, reading from left to right": "#a5d8ff",
    "noisy copy, reading the clean tokens before its image": "#99e9c9",
    "noisy copy, reading itself in both directions": "#ffc078",
}


def image(first: int) -> list[int]:
    """A picture block of two rows of two codes, its size written as one token to keep the drawing small."""
    vocabulary = VOCABULARY
    codes = [vocabulary.visual.start + first + number for number in range(4)]
    return [vocabulary.boi, 1, vocabulary.img, *codes[:2], vocabulary.eol, *codes[2:], vocabulary.eoi]


def example() -> tuple[DidaLayout, list[str]]:
    """A plan of two steps with the names of its tokens."""
    step = [VOCABULARY.boc, 0, VOCABULARY.eoc]
    ids = torch.tensor([[VOCABULARY.bos, 0, VOCABULARY.bss, *step, *image(0), *step, *image(4)]])
    learned = torch.ones(ids.shape[1])
    layout = dida_layout(ids, [image_spans(ids[0], learned, VOCABULARY)], VOCABULARY.pad)
    names = {token: role.upper() for role, token in VOCABULARY.roles.items()} | {0: "text", 1: "2*2"}
    marks = []
    for token, copied in zip(layout.ids[0].tolist(), (layout.image[0] >= 0).tolist(), strict=True):
        code = token - VOCABULARY.visual.start
        name = names.get(token, f"{'ab'[code // 4]}{code % 4 + 1}" if code >= 0 else "?")
        marks.append(f"{name}\u0303" if copied and code >= 0 else name)
    return layout, marks


def main() -> None:
    """Draw who (row) sees whom (column)."""
    layout, names = example()
    seen, image_of = dense_mask(layout)[0, 0], layout.image[0]
    kind = torch.where(image_of[:, None] == CLEAN, 1, torch.where(image_of[None] == CLEAN, 2, 3))
    figure = Figure(figsize=(8.5, 9), layout="constrained")
    axes = figure.subplots()
    axes.imshow((kind * seen).numpy(), cmap=ListedColormap(["white", *KINDS.values()]), vmin=0, vmax=3)
    size = len(names)
    axes.set_xticks(range(size), names, rotation=90, fontsize=7)
    axes.set_yticks(range(size), names, fontsize=7)
    axes.set(xlabel="is seen", ylabel="sees")
    axes.set_xticks([i - 0.5 for i in range(1, size)], minor=True)
    axes.set_yticks([i - 0.5 for i in range(1, size)], minor=True)
    axes.grid(which="minor", color="0.88", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    borders = [i - 0.5 for i in range(1, size) if image_of[i] != image_of[i - 1]]
    for border in borders:
        axes.axhline(border, color="0.25", linewidth=0.8)
        axes.axvline(border, color="0.25", linewidth=0.8)
    for name, colour in KINDS.items():
        axes.fill_between([], [], color=colour, label=name)
    figure.legend(loc="outside lower center", fontsize=9, frameon=False)
    figure.savefig(Path(__file__).with_name("dida_mask.png"), dpi=75)


if __name__ == "__main__":
    main()
