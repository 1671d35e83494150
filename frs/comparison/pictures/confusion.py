"""Confusion matrices: the classes that a detector takes for others, misses or invents."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from frs.comparison.pictures.style import LABELS, PAGE, picture
from frs.evaluation.confusion import MIN_IOU, MIN_SCORE

MAX_CLASSES = 20
"""Number of classes that are drawn: those with the most objects."""


@picture
def draw(counts_by_role: Mapping[str, NDArray[np.int64]], classes: tuple[str, ...]) -> Figure:
    """Draw the matrix of each role, (K + 1, K + 1) as from `frs.evaluation.confusion`.

    Colours are shares of a row: of the objects of a class, or of the detections without an object.
    """
    first = next(iter(counts_by_role.values()))
    frequent = np.sort(np.argsort(-first[:-1].sum(axis=1), kind="stable")[:MAX_CLASSES])
    kept, names = np.append(frequent, len(classes)), [classes[index] for index in frequent]
    figure = Figure(figsize=(PAGE, PAGE / len(counts_by_role) + 0.9), layout="constrained")
    grid = figure.subplots(1, len(counts_by_role), squeeze=False)[0]
    for axes, (role, counts) in zip(grid, counts_by_role.items(), strict=True):
        _draw_matrix(axes, counts[np.ix_(kept, kept)], counts.sum(axis=1)[kept], names)
        axes.set_title(LABELS[role])
    figure.axes[0].set_ylabel("object")
    figure.supxlabel(f"detection with a score of at least {MIN_SCORE:g}, IoU at least {MIN_IOU:g}", fontsize=7)
    return figure


def _draw_matrix(axes: Axes, counts: NDArray[np.int64], totals: NDArray[np.int64], names: list[str]) -> None:
    """Draw counts (N + 1, N + 1). `totals` (N + 1,) are the sums of the whole rows."""
    shares = counts / np.maximum(totals, 1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    ticks = range(len(counts))
    axes.set_xticks(ticks, [*names, "missed"], rotation=90, fontsize=6)
    axes.set_yticks(ticks, [*names, "no object"], fontsize=6)
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=5, color=colour)
