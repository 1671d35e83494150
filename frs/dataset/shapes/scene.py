"""Drawing of one scene: shapes of four classes among look-alikes, on a textured background."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from frs.dataset.shapes.outlines import CLASSES, LOOK_ALIKES, Points, coverage

Canvas = NDArray[np.float32]
NAMES = tuple(CLASSES)
"""Class names in the order of the labels."""

_NO_SHAPE = 0
_MAX_HIDDEN = 0.2
"""Fraction of a shape that later shapes may hide."""
_MIN_INSIDE = 0.75
"""Fraction of a shape that must lie on the canvas."""
_MIN_CONTRAST = 28.0
"""Euclidean distance in RGB, 0 to 255 a channel, between a shape and its background."""


@dataclass(frozen=True)
class DrawnObject:
    """Object in a scene, for the annotation file."""

    label: int
    """Index into `NAMES`; -1 for a look-alike."""
    box: tuple[int, int, int, int]
    """Left, top, width, height of the visible part, in pixels."""


@dataclass(frozen=True)
class Scene:
    """Drawn image and its objects."""

    image: Image.Image
    objects: tuple[DrawnObject, ...]
    """Objects of the classes; look-alikes are not included."""


@dataclass(frozen=True)
class _Shape:
    label: int
    radius: float
    coverage: Canvas
    """(S, S): fraction of each pixel that the shape covers, 0 to 1."""


class _SceneCanvas:
    """Canvas that records which shape each pixel shows."""

    def __init__(self, pixels: Canvas) -> None:
        self.pixels = pixels
        self.shape_numbers = np.full(pixels.shape[:2], _NO_SHAPE, dtype=np.int32)
        """(H, W): number of the visible shape, from 1."""
        self.shapes: list[_Shape] = []
        self.areas: list[int] = []
        """Pixels of each shape when it was painted, before later shapes hid some."""

    def place(self, rng: Generator, shape: _Shape, attempts: int = 12) -> None:
        """Paint the shape at a random position where it hides little of the others; skip it if none is found."""
        for _ in range(attempts):
            left, top = rng.integers(-shape.coverage.shape[0] // 2, self.shape_numbers.shape[0], size=2)
            if self._fits(shape, int(left), int(top)):
                return self._paint(rng, shape, int(left), int(top))
        return None

    def _window(self, shape: _Shape, left: int, top: int) -> tuple[tuple[slice, slice], Canvas]:
        """Return the slices of the canvas under the shape, and the part of the shape's coverage on the canvas."""
        size, side = self.shape_numbers.shape[0], shape.coverage.shape[0]
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, size), min(top + side, size)
        return (slice(y0, y1), slice(x0, x1)), shape.coverage[y0 - top : y1 - top, x0 - left : x1 - left]

    def _fits(self, shape: _Shape, left: int, top: int) -> bool:
        window, covered = self._window(shape, left, top)
        solid = covered >= 0.5
        if solid.sum() < _MIN_INSIDE * (shape.coverage >= 0.5).sum():
            return False
        hidden = np.bincount(self.shape_numbers[window][solid], minlength=len(self.areas) + 1)[1:]
        visible = np.bincount(self.shape_numbers.ravel(), minlength=len(self.areas) + 1)[1:]
        return all(visible - hidden >= (1 - _MAX_HIDDEN) * np.array(self.areas))

    def _paint(self, rng: Generator, shape: _Shape, left: int, top: int) -> None:
        window, covered = self._window(shape, left, top)
        under = self.pixels[window]
        colours = _sample_colours(rng, under[covered >= 0.5].mean(axis=0, dtype=np.float64), covered.shape)
        self.pixels[window] = under + (colours - under) * covered[..., None]
        self.shapes.append(shape)
        self.areas.append(int((covered >= 0.5).sum()))
        self.shape_numbers[window][covered >= 0.5] = len(self.shapes)

    def objects(self) -> tuple[DrawnObject, ...]:
        """Return the objects of the classes with the boxes of their visible parts."""
        objects = (
            DrawnObject(shape.label, tight_box(self.shape_numbers == n)) for n, shape in enumerate(self.shapes, 1)
        )
        return tuple(drawn for drawn in objects if drawn.label >= 0)


def draw_scene(rng: Generator, size: int) -> Scene:
    """Return a square scene of `size` pixels a side; the same generator state gives the same scene."""
    canvas = _SceneCanvas(_draw_clutter(rng, _draw_background(rng, size)))
    for shape in _sample_shapes(rng, size):
        canvas.place(rng, shape)
    return Scene(_apply_exposure(rng, canvas.pixels), canvas.objects())


def tight_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return left, top, width, height of the smallest box around the true pixels of a mask (H, W)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def _sample_shapes(rng: Generator, size: int) -> list[_Shape]:
    """Return objects and look-alikes, the largest first, so that a large shape does not hide a small one."""
    objects = [_sample_object(rng, size) for _ in range(rng.integers(2, 7))]
    look_alikes = [_sample_look_alike(rng, size) for _ in range(rng.integers(0, 3))]
    return sorted(objects + look_alikes, key=lambda shape: -shape.radius)


def _sample_object(rng: Generator, size: int) -> _Shape:
    label = int(rng.integers(len(NAMES)))
    return _sample_shape(rng, label, CLASSES[NAMES[label]], _sample_radius(rng, size, 0.07, 0.36), hollow=0.0)


def _sample_look_alike(rng: Generator, size: int) -> _Shape:
    radius = _sample_radius(rng, size, 0.06, 0.25)
    if rng.random() < 0.4:
        return _sample_shape(rng, -1, CLASSES[str(rng.choice(NAMES))], radius, hollow=rng.uniform(0.55, 0.8))
    return _sample_shape(rng, -1, LOOK_ALIKES[str(rng.choice(list(LOOK_ALIKES)))], radius, hollow=0.0)


def _sample_radius(rng: Generator, size: int, low: float, high: float) -> float:
    """Return a radius in pixels, log-uniform between `low` and `high`, which are fractions of the image's side."""
    return float(size * low * (high / low) ** rng.random())


def _sample_shape(rng: Generator, label: int, outline: Points, radius: float, *, hollow: float) -> _Shape:
    return _Shape(label, radius, coverage(outline, radius, rng.uniform(0, 2 * np.pi), hollow))


def _sample_colours(rng: Generator, under: NDArray[np.float64], shape: tuple[int, ...]) -> Canvas:
    """Return a shaded colour with noise, (H, W, 3).

    One shape in ten has a colour close to the background under it, with at least `_MIN_CONTRAST` between the two.
    """
    colour = rng.uniform(15, 240, size=3)
    if rng.random() < 0.1 or np.linalg.norm(colour - under) < _MIN_CONTRAST:
        colour = _sample_similar_colour(rng, under)
    slope = _sample_direction(rng) * rng.uniform(0, 25)
    across, down = np.linspace(-1, 1, shape[1]), np.linspace(-1, 1, shape[0])
    shade = slope[0] * across[None, :] + slope[1] * down[:, None]
    noise = rng.normal(0, rng.uniform(0, 5), size=shape)
    return np.asarray(colour + (shade + noise)[..., None], dtype=np.float32)


def _sample_similar_colour(rng: Generator, under: NDArray[np.float64]) -> NDArray[np.float64]:
    offset = _sample_direction(rng) * rng.uniform(_MIN_CONTRAST, 50)
    out_of_range = (under + offset < 10) | (under + offset > 245)
    return np.where(out_of_range, under - offset, under + offset)


def _sample_direction(rng: Generator) -> NDArray[np.float64]:
    vector = rng.normal(size=3)
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _draw_background(rng: Generator, size: int) -> Canvas:
    """Return a smooth pattern around one colour, with stripes in 40 % of the scenes: (size, size, 3)."""
    cells = int(rng.integers(2, 9))
    colours = rng.uniform(40, 215, size=3) + rng.normal(0, rng.uniform(4, 18), size=(cells, cells, 3))
    small = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
    clouds = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
    return clouds + _draw_stripes(rng, size)[..., None]


def _draw_stripes(rng: Generator, size: int) -> Canvas:
    if rng.random() < 0.6:
        return np.zeros((size, size), dtype=np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 24)
    steps = np.arange(size, dtype=np.float32)
    phase = np.cos(angle) * steps[None, :] + np.sin(angle) * steps[:, None]
    return np.asarray(rng.uniform(4, 16) * np.sin(2 * np.pi * phase / period), dtype=np.float32)


def _draw_clutter(rng: Generator, pixels: Canvas) -> Canvas:
    """Return the background with semi-transparent lines, arcs and irregular blobs drawn on it."""
    size = pixels.shape[0]
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(rng.integers(0, 4)):
        _draw_line(rng, draw, size)
    for _ in range(rng.integers(0, 2)):
        _draw_blob(rng, draw, size)
    return np.array(image, dtype=np.float32)


def _draw_line(rng: Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    colour, width = _sample_translucent_colour(rng), int(rng.integers(1, max(2, size // 40)))
    (x0, y0), (x1, y1) = rng.uniform(-0.2, 1.2, size=(2, 2)) * size
    if rng.random() < 0.5:
        draw.line((x0, y0, x1, y1), fill=colour, width=width)
    else:
        start = rng.uniform(0, 360)
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        draw.arc(box, start, start + rng.uniform(40, 160), fill=colour, width=width)


def _draw_blob(rng: Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    radii = rng.uniform(0.35, 1, size=14) * rng.uniform(0.06, 0.25) * size
    x, y = rng.uniform(0, size, size=2)
    corners = zip(x + radii * np.cos(angles), y + radii * np.sin(angles), strict=True)
    draw.polygon([(float(a), float(b)) for a, b in corners], fill=_sample_translucent_colour(rng))


def _sample_translucent_colour(rng: Generator) -> tuple[int, int, int, int]:
    """Return red, green, blue and alpha, 0 to 255."""
    red, green, blue = (int(value) for value in rng.integers(0, 256, size=3))
    return red, green, blue, int(rng.integers(50, 170))


def _apply_exposure(rng: Generator, pixels: Canvas) -> Image.Image:
    """Return the image after a random change of brightness and random noise."""
    brightness, noise = rng.uniform(0.75, 1.05), rng.normal(0, rng.uniform(0, 4), size=pixels.shape)
    return Image.fromarray(np.clip(pixels * brightness + noise, 0, 255).astype(np.uint8))
