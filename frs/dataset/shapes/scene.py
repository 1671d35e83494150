"""One drawn scene: shapes of four classes among look-alikes, on a background that hides them now and then."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from frs.dataset.shapes.outlines import CLASSES, LOOK_ALIKES, Points, coverage

Canvas = NDArray[np.float32]
NAMES = tuple(CLASSES)

_NOTHING = 0
_MOST_HIDDEN = 0.2
_LEAST_INSIDE = 0.75
_LEAST_CONTRAST = 28.0


@dataclass(frozen=True)
class DrawnObject:
    label: int
    """Index into `NAMES`; -1 for a look-alike."""
    box: tuple[int, int, int, int]
    """Left, top, width, height of what is visible."""


@dataclass(frozen=True)
class Scene:
    picture: Image.Image
    objects: tuple[DrawnObject, ...]


@dataclass(frozen=True)
class _Shape:
    label: int
    radius: float
    cover: Canvas


class _SceneCanvas:
    """The picture in the making, and which shape each of its pixels shows."""

    def __init__(self, pixels: Canvas) -> None:
        self.pixels = pixels
        self.shown = np.full(pixels.shape[:2], _NOTHING, dtype=np.int32)
        self.shapes: list[_Shape] = []
        self.areas: list[int] = []
        """Pixels of each shape before others hid some."""

    def place(self, rng: Generator, shape: _Shape, tries: int = 12) -> None:
        """Puts the shape where it hides little of what is there, or nowhere."""
        for _ in range(tries):
            left, top = rng.integers(-shape.cover.shape[0] // 2, self.shown.shape[0], size=2)
            if self._fits(shape, int(left), int(top)):
                return self._paint(rng, shape, int(left), int(top))
        return None

    def _window(self, shape: _Shape, left: int, top: int) -> tuple[tuple[slice, slice], Canvas]:
        """The part of the sheet under a shape, and the part of the shape on the sheet."""
        size, side = self.shown.shape[0], shape.cover.shape[0]
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, size), min(top + side, size)
        return (slice(y0, y1), slice(x0, x1)), shape.cover[y0 - top : y1 - top, x0 - left : x1 - left]

    def _fits(self, shape: _Shape, left: int, top: int) -> bool:
        window, cover = self._window(shape, left, top)
        solid = cover >= 0.5
        if solid.sum() < _LEAST_INSIDE * (shape.cover >= 0.5).sum():
            return False
        hidden = np.bincount(self.shown[window][solid], minlength=len(self.areas) + 1)[1:]
        seen = np.bincount(self.shown.ravel(), minlength=len(self.areas) + 1)[1:]
        return all(seen - hidden >= (1 - _MOST_HIDDEN) * np.array(self.areas))

    def _paint(self, rng: Generator, shape: _Shape, left: int, top: int) -> None:
        window, cover = self._window(shape, left, top)
        under = self.pixels[window]
        ink = _ink(rng, under[cover >= 0.5].mean(axis=0, dtype=np.float64), cover.shape)
        self.pixels[window] = under + (ink - under) * cover[..., None]
        self.shapes.append(shape)
        self.areas.append(int((cover >= 0.5).sum()))
        self.shown[window][cover >= 0.5] = len(self.shapes)

    def objects(self) -> tuple[DrawnObject, ...]:
        found = (DrawnObject(shape.label, tight_box(self.shown == n)) for n, shape in enumerate(self.shapes, 1))
        return tuple(drawn for drawn in found if drawn.label >= 0)


def draw_scene(rng: Generator, size: int) -> Scene:
    sheet = _SceneCanvas(_clutter(rng, _background(rng, size)))
    for shape in _shapes(rng, size):
        sheet.place(rng, shape)
    return Scene(_photographed(rng, sheet.pixels), sheet.objects())


def tight_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def _shapes(rng: Generator, size: int) -> list[_Shape]:
    """Largest first, so that small ones are not looked for below them."""
    objects = [_object(rng, size) for _ in range(rng.integers(2, 7))]
    others = [_look_alike(rng, size) for _ in range(rng.integers(0, 3))]
    return sorted(objects + others, key=lambda shape: -shape.radius)


def _object(rng: Generator, size: int) -> _Shape:
    label = int(rng.integers(len(NAMES)))
    return _shape(rng, label, CLASSES[NAMES[label]], _radius(rng, size, 0.07, 0.36), hollow=0.0)


def _look_alike(rng: Generator, size: int) -> _Shape:
    radius = _radius(rng, size, 0.06, 0.25)
    if rng.random() < 0.4:
        return _shape(rng, -1, CLASSES[str(rng.choice(NAMES))], radius, hollow=rng.uniform(0.55, 0.8))
    return _shape(rng, -1, LOOK_ALIKES[str(rng.choice(list(LOOK_ALIKES)))], radius, hollow=0.0)


def _radius(rng: Generator, size: int, least: float, most: float) -> float:
    """As many of one size as of twice that size, as shares of the picture's side."""
    return float(size * least * (most / least) ** rng.random())


def _shape(rng: Generator, label: int, outline: Points, radius: float, *, hollow: float) -> _Shape:
    return _Shape(label, radius, coverage(outline, radius, rng.uniform(0, 2 * np.pi), hollow))


def _ink(rng: Generator, under: NDArray[np.float64], area: tuple[int, ...]) -> Canvas:
    """A shaded, grained colour; for every tenth shape one close to what lies under it, but never the same."""
    colour = rng.uniform(15, 240, size=3)
    if rng.random() < 0.1 or np.linalg.norm(colour - under) < _LEAST_CONTRAST:
        colour = _near(rng, under)
    slope = _direction(rng) * rng.uniform(0, 25)
    across, down = np.linspace(-1, 1, area[1]), np.linspace(-1, 1, area[0])
    shade = slope[0] * across[None, :] + slope[1] * down[:, None]
    grain = rng.normal(0, rng.uniform(0, 5), size=area)
    return np.asarray(colour + (shade + grain)[..., None], dtype=np.float32)


def _near(rng: Generator, under: NDArray[np.float64]) -> NDArray[np.float64]:
    step = _direction(rng) * rng.uniform(_LEAST_CONTRAST, 50)
    beyond = (under + step < 10) | (under + step > 245)
    return np.where(beyond, under - step, under + step)


def _direction(rng: Generator) -> NDArray[np.float64]:
    vector = rng.normal(size=3)
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _background(rng: Generator, size: int) -> Canvas:
    """Coloured clouds around one colour, with stripes now and then, and grain."""
    cells = int(rng.integers(2, 9))
    colours = rng.uniform(40, 215, size=3) + rng.normal(0, rng.uniform(4, 18), size=(cells, cells, 3))
    small = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
    clouds = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
    return clouds + _stripes(rng, size)[..., None]


def _stripes(rng: Generator, size: int) -> Canvas:
    if rng.random() < 0.6:
        return np.zeros((size, size), dtype=np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 24)
    steps = np.arange(size, dtype=np.float32)
    along = np.cos(angle) * steps[None, :] + np.sin(angle) * steps[:, None]
    return np.asarray(rng.uniform(4, 16) * np.sin(2 * np.pi * along / period), dtype=np.float32)


def _clutter(rng: Generator, pixels: Canvas) -> Canvas:
    """Lines, arcs and ragged blobs, more or less see-through."""
    size = pixels.shape[0]
    sheet = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(sheet, "RGBA")
    for _ in range(rng.integers(0, 4)):
        _line(rng, pen, size)
    for _ in range(rng.integers(0, 2)):
        _blob(rng, pen, size)
    return np.array(sheet, dtype=np.float32)


def _line(rng: Generator, pen: ImageDraw.ImageDraw, size: int) -> None:
    ink, width = _see_through(rng), int(rng.integers(1, max(2, size // 40)))
    (x0, y0), (x1, y1) = rng.uniform(-0.2, 1.2, size=(2, 2)) * size
    if rng.random() < 0.5:
        pen.line((x0, y0, x1, y1), fill=ink, width=width)
    else:
        start = rng.uniform(0, 360)
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        pen.arc(box, start, start + rng.uniform(40, 160), fill=ink, width=width)


def _blob(rng: Generator, pen: ImageDraw.ImageDraw, size: int) -> None:
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    reach = rng.uniform(0.35, 1, size=14) * rng.uniform(0.06, 0.25) * size
    x, y = rng.uniform(0, size, size=2)
    corners = zip(x + reach * np.cos(turn), y + reach * np.sin(turn), strict=True)
    pen.polygon([(float(a), float(b)) for a, b in corners], fill=_see_through(rng))


def _see_through(rng: Generator) -> tuple[int, int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(0, 256, size=3))
    return red, green, blue, int(rng.integers(50, 170))


def _photographed(rng: Generator, pixels: Canvas) -> Image.Image:
    light, grain = rng.uniform(0.75, 1.05), rng.normal(0, rng.uniform(0, 4), size=pixels.shape)
    return Image.fromarray(np.clip(pixels * light + grain, 0, 255).astype(np.uint8))
