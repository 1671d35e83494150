"""Outlines of the drawn shapes: four classes, and look-alikes that resemble a class but belong to none."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]
"""(N, 2): corners x, y of an outline around the origin, in units of its radius."""
_OVERSAMPLING = 4
"""Subpixels per pixel side when a shape is rasterised."""


def _regular(corners: int) -> Points:
    angles = 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star(tips: int, inner_radius: float) -> Points:
    return _regular(2 * tips) * np.where(np.arange(2 * tips) % 2, inner_radius, 1.0)[:, None]


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
    """Return (S, S), the fraction of each pixel that the outline covers, 0 to 1, around the centre of a square patch.

    `radius` is in pixels, `angle` in radians. `hollow` is the radius of a hole of the same outline, as a fraction of
    `radius`; 0 gives a solid shape. S = 2 ceil(radius) + 3.
    """
    side = 2 * int(np.ceil(radius)) + 3
    patch = Image.new("L", (side * _OVERSAMPLING, side * _OVERSAMPLING))
    draw = ImageDraw.Draw(patch)
    for scale, value in ((1.0, 255), (hollow, 0)):
        if scale:
            draw.polygon(_transform(outline, radius * scale, angle, side), fill=value)
    return np.asarray(patch.reduce(_OVERSAMPLING), dtype=np.float32) / np.float32(255)


def _transform(outline: Points, radius: float, angle: float, side: int) -> list[tuple[float, float]]:
    cos, sin = np.cos(angle), np.sin(angle)
    points = (outline @ np.array([(cos, sin), (-sin, cos)]) * radius + side / 2) * _OVERSAMPLING - 0.5
    return [(float(x), float(y)) for x, y in points]
