"""What teacher, baseline and student say of the images on which baseline and student differ most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from frs.comparison.pictures.style import LABELS, PAGE, bare, picture
from frs.dataset.coco import CocoFile
from frs.errors import InvalidSpec
from frs.evaluation.detections import Rows
from frs.evaluation.matching import FOUND, MISSED, ClassMatches
from frs.resolved import inside

IMAGES = 6
SURE = 0.3
"""Least score that is drawn."""
_LARGEST = 640
_RIGHT, _WRONG, _TRUTH = "#0072B2", "#D55E00", "#009E73"


@dataclass(frozen=True, eq=False)
class MatchedDetections:
    """One detector's detections and what became of them."""

    rows: Rows
    matches: Sequence[ClassMatches]


@picture
def draw(truth: CocoFile, folder: Path, ids: NDArray[np.int64], sides: Mapping[str, MatchedDetections]) -> Figure:
    """`sides`: `baseline` and `student`, `teacher` where there is one; `ids`: of the images the matches count."""
    chosen = differing(sides["student"].matches, sides["baseline"].matches)
    columns = ["truth", *sides]
    cell = PAGE / len(columns)
    figure = Figure(figsize=(PAGE, len(chosen) * cell * 1.12 + 0.5), layout="constrained")
    grid = figure.subplots(len(chosen), len(columns), squeeze=False)
    places = {image.id: index for index, image in enumerate(truth.images)}
    for row, place in zip(grid, chosen, strict=True):
        _draw_row(row, truth, folder, places[int(ids[place])], place, sides)
    for axes, name in zip(grid[0], columns, strict=True):
        head = "ground truth" if name == "truth" else LABELS[name]
        above = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center", "fontweight": "bold"}
        axes.annotate(head, (0.5, 1), (0, 14), fontsize=9, **above)  # the title says what was found
    figure.legend(handles=_key(), loc="outside lower center", ncols=3)
    return figure


def differing(student: Sequence[ClassMatches], baseline: Sequence[ClassMatches]) -> list[int]:
    """Places of the images where right less wrong detections differ most, for better or worse."""
    difference = np.abs(_balance(student) - _balance(baseline))
    return [int(place) for place in np.argsort(-difference, kind="stable")[:IMAGES]]


def _balance(matches: Sequence[ClassMatches]) -> NDArray[np.float64]:
    """(images,) right less wrong detections, at IoU 0.5 and a score of `SURE`."""
    total = np.zeros(len(matches[0].objects))
    for of_class in matches:
        sure = of_class.score >= SURE
        outcome = of_class.outcome[sure, 0, 0]
        worth = (outcome == FOUND).astype(float) - (outcome == MISSED)
        total += np.bincount(of_class.image[sure], worth, minlength=len(total))
    return total


def _draw_row(
    row: Sequence[Axes], truth: CocoFile, folder: Path, index: int, place: int, sides: Mapping[str, MatchedDetections]
) -> None:
    image = truth.images[index]
    picture, scale = _read(folder, image.file_name)
    for axes in row:
        axes.imshow(picture)
        bare(axes)
    boxes = truth.boxes_of(index)
    for box, label in zip(boxes.xywh * scale, boxes.label, strict=True):
        _draw_box(row[0], box, truth.classes[label], _TRUTH, "-")
    _say(row[0], f"{len(boxes)} objects")
    for axes, seen in zip(row[1:], sides.values(), strict=True):
        _draw_seen(axes, seen, place, scale)


def _draw_seen(axes: Axes, seen: MatchedDetections, place: int, scale: float) -> None:
    right = wrong = objects = 0
    for of_class in seen.matches:
        objects += int(of_class.objects[place, 0])
        for number in np.flatnonzero((of_class.image == place) & (of_class.score >= SURE)):
            outcome = of_class.outcome[number, 0, 0]
            box = seen.rows[of_class.row[number], 1:5] * scale
            found = outcome != MISSED
            right, wrong = right + int(outcome == FOUND), wrong + int(not found)
            label = f"{of_class.name} {of_class.score[number]:.2f}"
            _draw_box(axes, box, label, _RIGHT if found else _WRONG, "-" if found else "--")
    _say(axes, f"{right} right, {wrong} wrong, {objects - right} missed")


def _draw_box(axes: Axes, box: NDArray[np.float64], label: str, colour: str, line: str) -> None:
    axes.add_patch(Rectangle((box[0], box[1]), box[2], box[3], fill=False, edgecolor=colour, linestyle=line, lw=1.1))
    ground = {"facecolor": colour, "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
    room = box[1] > 0.06 * axes.get_ylim()[0]
    above = "bottom" if room else "top"
    axes.text(max(0, box[0]), max(0, box[1]), label, fontsize=3.6, color="white", va=above, bbox=ground, clip_on=True)


def _say(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=6.5, pad=2)


def _read(folder: Path, name: str) -> tuple[NDArray[np.uint8], float]:
    """The image no larger than it is drawn, and by what it was scaled; grey where it cannot be read."""
    try:
        with Image.open(inside(folder, name)) as file:
            width = file.width
            file.thumbnail((_LARGEST, _LARGEST))
            return np.asarray(file.convert("RGB")), file.width / width
    except (OSError, ValueError, InvalidSpec):
        return np.full((_LARGEST, _LARGEST, 3), 200, np.uint8), 1.0


def _key() -> list[Rectangle]:
    means = {
        "object": (_TRUTH, "-"),
        f"right (IoU 0.5, score from {SURE})": (_RIGHT, "-"),
        "wrong": (_WRONG, "--"),
    }
    return [
        Rectangle((0, 0), 1, 1, fill=False, edgecolor=colour, linestyle=line, label=text)
        for text, (colour, line) in means.items()
    ]
