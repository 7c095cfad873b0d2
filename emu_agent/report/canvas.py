"""Drawing on a numpy picture: colours, boxes, text and lines. Knows nothing of what is drawn."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

type Colour = tuple[int, int, int]
"""Red, green, blue."""

BACKGROUND: Colour = (17, 20, 27)
CARD: Colour = (28, 33, 43)
INK: Colour = (232, 236, 242)
MUTED: Colour = (156, 166, 182)
FAINT: Colour = (98, 108, 124)
ACCENT: Colour = (94, 200, 214)
GOOD: Colour = (88, 196, 120)
BAD: Colour = (226, 96, 90)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FRACTION_BITS = 3


@dataclass(frozen=True)
class Box:
    """A rectangle of the picture [pixels]."""

    x: int
    y: int
    width: int
    height: int

    @property
    def corner(self) -> tuple[int, int]:
        """Top left pixel."""
        return self.x, self.y

    @property
    def far_corner(self) -> tuple[int, int]:
        """Bottom right pixel."""
        return self.x + self.width - 1, self.y + self.height - 1

    def part(self, canvas: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "rows cols 3"]:
        """View of the box's pixels."""
        return canvas[self.y : self.y + self.height, self.x : self.x + self.width]


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Colour between two, `share` of it from the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def enlarge(
    picture: UInt8[np.ndarray, "height width 3"], box: Box
) -> UInt8[np.ndarray, "box_height box_width 3"]:
    """Fit a picture into a box, keeping its sides' ratio, on black."""
    height, width = picture.shape[:2]
    scale = min(box.width / width, box.height / height)
    size = (round(width * scale), round(height * scale))
    fitted = np.zeros((box.height, box.width, 3), np.uint8)
    x, y = (box.width - size[0]) // 2, (box.height - size[1]) // 2
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    fitted[y : y + size[1], x : x + size[0]] = cv2.resize(picture, size, interpolation=method)
    return fitted


def draw_card(canvas: UInt8[np.ndarray, "height width 3"], box: Box, colour: Colour, radius: int = 8) -> None:
    """Fill a rectangle with round corners."""
    card = np.ascontiguousarray(box.part(canvas))  # a part of its own, so that smooth edges stay inside
    right, bottom = box.width - 1, box.height - 1
    for x in (radius, right - radius):
        for y in (radius, bottom - radius):
            cv2.circle(card, (x, y), radius, colour, -1, cv2.LINE_AA)
    cv2.rectangle(card, (radius, 0), (right - radius, bottom), colour, -1)
    cv2.rectangle(card, (0, radius), (right, bottom - radius), colour, -1)
    box.part(canvas)[:] = card


def text_width(text: str, scale: float) -> int:
    """Width of a line of text [pixels]."""
    return cv2.getTextSize(_ascii(text), _FONT, scale, 1)[0][0]


def draw_text(
    canvas: UInt8[np.ndarray, "height width 3"],
    text: str,
    at: tuple[int, int],
    scale: float,
    colour: Colour,
    *,
    bold: bool = False,
) -> int:
    """Draw a line of text from its lower left corner; return where it ends."""
    font = cv2.FONT_HERSHEY_DUPLEX if bold else _FONT
    cv2.putText(canvas, _ascii(text), at, font, scale, colour, 1, cv2.LINE_AA)
    return at[0] + cv2.getTextSize(_ascii(text), font, scale, 1)[0][0]


def wrap(text: str, scale: float, width: int) -> list[str]:
    """Break text into lines that fit a width, between words where there are any."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if text_width(joined, scale) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def draw_lines(
    canvas: UInt8[np.ndarray, "height width 3"],
    box: Box,
    values: Float[np.ndarray, " steps"],
    capacity: int,
    colour: Colour,
) -> None:
    """Plot values in [-1, 1] from the left edge of a box that has room for `capacity` of them."""
    if len(values) < 2:
        return
    x = box.x + np.arange(len(values)) * box.width / capacity
    y = box.y + box.height * (0.5 - 0.5 * np.clip(values, -1, 1))
    points = np.round(np.stack([x, y], axis=1) * 2**_FRACTION_BITS).astype(np.int32)
    cv2.polylines(canvas, [points], False, colour, 1, cv2.LINE_AA, _FRACTION_BITS)


def _ascii(text: str) -> str:
    """OpenCV's fonts hold ASCII only and draw anything else as question marks, one per byte."""
    return text.encode("ascii", "replace").decode()
