"""Outlines of what is drawn: the four classes, and shapes that look like one of them and are none."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]
_FINE = 4


def _regular(corners: int) -> Points:
    turn = 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _star(tips: int, waist: float) -> Points:
    return _regular(2 * tips) * np.where(np.arange(2 * tips) % 2, waist, 1.0)[:, None]


CLASSES: dict[str, Points] = {
    "circle": _regular(48),
    "square": _regular(4),
    "triangle": _regular(3),
    "star": _star(5, 0.45),
}

LOOK_ALIKES: dict[str, Points] = {
    "ellipse": _regular(48) * (1, 0.6),
    "half disc": _regular(48)[:25],
    "rectangle": np.array([(1, 0.45), (-1, 0.45), (-1, -0.45), (1, -0.45)]),
    "rhombus": _regular(4) * (1, 0.55),
    "pentagon": _regular(5),
    "sliver": _regular(3) * (1, 0.45),
    "arrowhead": np.array([(1, 0), (-0.8, 0.8), (-0.25, 0), (-0.8, -0.8)]),
}


def coverage(outline: Points, radius: float, angle: float, hollow: float = 0.0) -> NDArray[np.float32]:
    """How far each pixel of a square patch is covered, 0 to 1, by the outline around its centre.

    `hollow`: the share of the radius that is left out inside.
    """
    side = 2 * int(np.ceil(radius)) + 3
    patch = Image.new("L", (side * _FINE, side * _FINE))
    pen = ImageDraw.Draw(patch)
    for scale, ink in ((1.0, 255), (hollow, 0)):
        if scale:
            pen.polygon(_placed(outline, radius * scale, angle, side), fill=ink)
    return np.asarray(patch.reduce(_FINE), dtype=np.float32) / np.float32(255)


def _placed(outline: Points, radius: float, angle: float, side: int) -> list[tuple[float, float]]:
    cos, sin = np.cos(angle), np.sin(angle)
    points = (outline @ np.array([(cos, sin), (-sin, cos)]) * radius + side / 2) * _FINE - 0.5
    return [(float(x), float(y)) for x, y in points]
