"""Draws docs/architecture.svg: what goes from an observation to an action.

Run `python docs/architecture.py`.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

WORLD, ACTING, OUTSIDE = "#a5d8ff", "#ffc078", "#e9ecef"
LEGEND = {"emu_agent: the world model": WORLD, "emu_policies: acting": ACTING, "outside": OUTSIDE}


@dataclass(frozen=True)
class Box:
    """A box of the figure: where its centre is, its width and height, colour and words."""

    x: float
    y: float
    title: str
    below: str
    colour: str
    width: float = 2.7
    height: float = 0.95


BOXES = {
    "scene": Box(1.5, 5.2, "environment or robot", "MuJoCo, robosuite, Meta-World,\nLeRobot", OUTSIDE),
    "observation": Box(5.0, 5.2, "observation", "images, proprioception,\ninstruction", WORLD),
    "tokens": Box(8.5, 5.2, "prompt of tokens", "image tokenizer (IBQ),\ntext tokenizer", WORLD),
    "world": Box(12.0, 5.2, "world model", "one transformer; cache shared\nby all candidates", WORLD),
    "text": Box(10.25, 3.4, "subtask instruction", "token by token", WORLD),
    "image": Box(13.75, 3.4, "keyframe", "DiDA: few passes,\nor token by token", WORLD),
    "confidence": Box(12.0, 1.6, "confidence", "will it be achieved?\nimagine again if not", ACTING),
    "head": Box(6.75, 3.4, "action head", "flow matching over a chunk", ACTING),
    "gate": Box(3.25, 3.4, "action gate", "limits, workspace,\nage of observations", ACTING),
    "when": Box(8.5, 1.6, "when to imagine", "never, always, adaptive", ACTING),
}
ARROWS = [
    ("scene", "observation", ""),
    ("observation", "tokens", ""),
    ("tokens", "world", ""),
    ("world", "text", ""),
    ("world", "image", ""),
    ("text", "image", ""),
    ("text", "head", ""),
    ("image", "confidence", ""),
    ("confidence", "when", ""),
    ("head", "gate", "chunk"),
    ("gate", "scene", "action"),
    ("observation", "head", "proprioception,\nfurther cameras"),
    ("when", "head", "subtask and keyframe\nto act on"),
]


def draw() -> Figure:
    """The figure."""
    figure = Figure(figsize=(12.6, 4.5))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 15.3), ylim=(0.85, 6.0))
    axes.axis("off")
    for start, end, words in ARROWS:
        _arrow(axes, BOXES[start], BOXES[end], words)
    for box in BOXES.values():
        corner = (box.x - box.width / 2, box.y - box.height / 2)
        shape = FancyBboxPatch(
            corner,
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=0.12",
            fc=box.colour,
            ec="#495057",
        )
        axes.add_patch(shape)
        axes.text(box.x, box.y + 0.25, box.title, ha="center", va="center", fontsize=11, weight="bold")
        axes.text(box.x, box.y - 0.16, box.below, ha="center", va="center", fontsize=8.5)
    for i, (words, colour) in enumerate(LEGEND.items()):
        axes.add_patch(
            FancyBboxPatch((0.3, 1.9 - 0.4 * i), 0.3, 0.2, boxstyle="round,pad=0", fc=colour, ec="#495057")
        )
        axes.text(0.75, 2.0 - 0.4 * i, words, va="center", fontsize=9)
    return figure


def _arrow(axes: Axes, start: Box, end: Box, words: str) -> None:
    """An arrow between the nearer sides of two boxes, with words at its middle."""
    (x, y), (x2, y2) = (start.x, start.y), (end.x, end.y)
    if y == y2:
        side = 1 if x2 > x else -1
        x, x2 = x + side * start.width / 2, x2 - side * end.width / 2
    else:
        side = 1 if y2 > y else -1
        y, y2 = y + side * start.height / 2, y2 - side * end.height / 2
    axes.annotate("", (x2, y2), (x, y), arrowprops={"arrowstyle": "-|>", "lw": 1.3, "color": "#495057"})
    if words:
        axes.text((x + x2) / 2, (y + y2) / 2, words, fontsize=8.5, ha="center", va="center",
            bbox={"fc": "white", "ec": "none", "pad": 1.0})  # fmt: skip


if __name__ == "__main__":
    mpl.rcParams["svg.hashsalt"] = "emu-agent"  # the same bytes each time
    draw().savefig(Path(__file__).with_suffix(".svg"), facecolor="white", metadata={"Date": None})
