"""Images inside a page: figures, photographs, as addresses that hold their content."""

import base64
import io
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_png(figure: "Figure") -> bytes:
    """A matplotlib figure as a PNG file; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def png(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    stream = io.BytesIO()
    image.save(stream, format="png")
    return stream.getvalue()


def jpeg(image: UInt8[np.ndarray, "height width 3"], quality: int = 88) -> bytes:
    """An image (RGB) as a JPEG file."""
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def address(content: bytes, kind: str = "png") -> str:
    """An image file as an address for `src`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
