"""What the teacher's feature richness looks like: the image, then the score map of each pyramid level over it."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from frs.comparison.pictures.style import PAGE, bare, picture
from frs.distillation.losses import richness
from frs.distillation.teacher import Teacher


class RichnessMaps(NamedTuple):
    image: NDArray[np.uint8]
    """(height, width, 3) RGB, as the teacher saw it."""
    maps: dict[int, NDArray[np.float32]]
    """By stride: (rows, columns), 0 to 1."""


def draw(teacher: Teacher, batches: DataLoader[Any]) -> bytes:
    """A row for each image; batches of one image each."""
    return drawn([_believed(teacher, batch["inputs"]) for batch in batches])


@picture
def drawn(rows: list[RichnessMaps]) -> Figure:
    strides = list(rows[0].maps)
    cell = PAGE / (1 + len(strides))
    figure = Figure(figsize=(PAGE, len(rows) * cell + 0.7), layout="constrained")
    grid = figure.subplots(len(rows), 1 + len(strides), squeeze=False)
    for axes, title in zip(grid[0], ["image", *(f"stride {stride}" for stride in strides)], strict=True):
        axes.set_title(title)
    for row, believed in zip(grid, rows, strict=True):
        for axes in row:
            bare(axes)
        row[0].imshow(believed.image)
        shown = [
            _lay_over(axes, believed.image, stride, believed.maps[stride])
            for axes, stride in zip(row[1:], strides, strict=True)
        ]
    bar = figure.colorbar(shown[-1], ax=grid, location="bottom", shrink=0.5, aspect=40, pad=0.02)
    bar.set_label("richness: how much the teacher believes something is there")
    return figure


def _believed(teacher: Teacher, inputs: Any) -> RichnessMaps:
    _, logits = teacher.observe(inputs)
    maps = {stride: richness(level)[0, 0].cpu().numpy() for stride, level in logits.items()}
    return RichnessMaps(inputs[0].permute(1, 2, 0).flip(-1).cpu().numpy(), maps)  # mmdet's images are BGR


def _lay_over(axes: Axes, image: NDArray[np.uint8], stride: int, found: NDArray[np.float32]) -> Any:
    """The map spans the padded image, of which the image is the upper left."""
    height, width = image.shape[:2]
    axes.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    rows, columns = found.shape
    extent = (0, columns * stride, rows * stride, 0)
    style: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": 1, "alpha": 0.65, "interpolation": "bilinear"}
    shown = axes.imshow(found, extent=extent, **style)
    axes.set(xlim=(0, width), ylim=(height, 0))
    return shown
