"""The teacher's feature richness on images: as a picture, and as data for pictures that readers can move through."""

import base64
import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from frs.comparison.pictures.style import PAGE, hide_frame, picture
from frs.distillation.losses import richness
from frs.distillation.teacher import Teacher


class RichnessMaps(NamedTuple):
    """An image and its richness maps."""

    image: NDArray[np.uint8]
    """(height, width, 3): RGB, as the teacher receives it."""
    maps: dict[int, NDArray[np.float32]]
    """By stride: (rows, columns), 0 to 1."""


def compute(teacher: Teacher, batches: DataLoader[Any]) -> list[RichnessMaps]:
    """Return the maps of each image; the batches hold one image each."""
    return [_compute_maps(teacher, batch["inputs"]) for batch in batches]


def to_json(rows: Sequence[RichnessMaps]) -> bytes:
    """Return the images and maps as JSON: `images`, each with `jpeg`, `width`, `height` and `levels`.

    A level has `stride`, `rows`, `columns` and `values`: one byte a location in row order, 255 for richness 1. It
    covers `rows * stride` pixels from the top and `columns * stride` from the left. Bytes are in base64.
    """
    images = [
        {
            "jpeg": _base64(_jpeg(row.image)),
            "width": row.image.shape[1],
            "height": row.image.shape[0],
            "levels": [
                {
                    "stride": stride,
                    "rows": level.shape[0],
                    "columns": level.shape[1],
                    "values": _base64((255 * level.clip(0, 1)).round().astype(np.uint8).tobytes()),
                }
                for stride, level in row.maps.items()
            ],
        }
        for row in rows
    ]
    return json.dumps({"images": images}).encode()


@picture
def draw(rows: Sequence[RichnessMaps]) -> Figure:
    """Draw one row per image: the image, then its maps by stride."""
    strides = list(rows[0].maps)
    cell = PAGE / (1 + len(strides))
    figure = Figure(figsize=(PAGE, len(rows) * cell + 0.7), layout="constrained")
    grid = figure.subplots(len(rows), 1 + len(strides), squeeze=False)
    for axes, title in zip(grid[0], ["image", *(f"stride {stride}" for stride in strides)], strict=True):
        axes.set_title(title)
    for row, image_maps in zip(grid, rows, strict=True):
        for axes in row:
            hide_frame(axes)
        row[0].imshow(image_maps.image)
        overlays = [
            _draw_overlay(axes, image_maps.image, stride, image_maps.maps[stride])
            for axes, stride in zip(row[1:], strides, strict=True)
        ]
    bar = figure.colorbar(overlays[-1], ax=grid, location="bottom", shrink=0.5, aspect=40, pad=0.02)
    bar.set_label("richness: the teacher's highest class score at each location")
    return figure


def _compute_maps(teacher: Teacher, inputs: Any) -> RichnessMaps:
    _, logits = teacher.observe(inputs)
    maps = {stride: richness(level)[0, 0].cpu().numpy() for stride, level in logits.items()}
    return RichnessMaps(inputs[0].permute(1, 2, 0).flip(-1).cpu().numpy(), maps)  # mmdet's images are BGR


def _draw_overlay(axes: Axes, image: NDArray[np.uint8], stride: int, richness_map: NDArray[np.float32]) -> Any:
    """Draw the map over the image. It covers the padded image, whose upper left part is the image."""
    height, width = image.shape[:2]
    axes.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    rows, columns = richness_map.shape
    extent = (0, columns * stride, rows * stride, 0)
    style: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": 1, "alpha": 0.65, "interpolation": "bilinear"}
    overlay = axes.imshow(richness_map, extent=extent, **style)
    axes.set(xlim=(0, width), ylim=(height, 0))
    return overlay


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=85)
    return content.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
