"""The detections of teacher, baseline and student on the images where baseline and student differ most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from frs.comparison.pictures.style import LABELS, PAGE, hide_frame, picture
from frs.dataset.coco import CocoFile
from frs.errors import InvalidSpec
from frs.evaluation.detections import Rows
from frs.evaluation.matching import FALSE_POSITIVE, TRUE_POSITIVE, ClassMatches
from frs.resolved import inside

IMAGES = 6
MIN_SCORE = 0.3
"""Minimum score of a detection that is drawn and counted."""
_MAX_SIDE = 640
_RIGHT, _WRONG, _TRUTH = "#0072B2", "#D55E00", "#009E73"


@dataclass(frozen=True, eq=False)
class MatchedDetections:
    """One detector's detections and their matches."""

    rows: Rows
    matches: Sequence[ClassMatches]


@picture
def draw(truth: CocoFile, folder: Path, ids: NDArray[np.int64], matched: Mapping[str, MatchedDetections]) -> Figure:
    """Draw one row per image: the ground truth, then the detections of each role.

    `matched` has `baseline` and `student`, and `teacher` if there is one; `ids` (images,) are the ids of the images
    that the matches are on; `folder` holds the images.
    """
    selected = most_different_images(matched["student"].matches, matched["baseline"].matches)
    columns = ["truth", *matched]
    cell = PAGE / len(columns)
    figure = Figure(figsize=(PAGE, len(selected) * cell * 1.12 + 0.5), layout="constrained")
    grid = figure.subplots(len(selected), len(columns), squeeze=False)
    index_of_id = {image.id: index for index, image in enumerate(truth.images)}
    for row, position in zip(grid, selected, strict=True):
        _draw_row(row, truth, folder, index_of_id[int(ids[position])], position, matched)
    for axes, name in zip(grid[0], columns, strict=True):
        heading = "ground truth" if name == "truth" else LABELS[name]
        above = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center", "fontweight": "bold"}
        axes.annotate(heading, (0.5, 1), (0, 14), fontsize=9, **above)  # the axes' title holds the counts
    figure.legend(handles=_legend_handles(), loc="outside lower center", ncols=3)
    return figure


def most_different_images(student: Sequence[ClassMatches], baseline: Sequence[ClassMatches]) -> list[int]:
    """Return the indices of the images on which student and baseline differ most, in either direction.

    They differ by the number of right minus wrong detections.
    """
    difference = np.abs(right_minus_wrong(student) - right_minus_wrong(baseline))
    return [int(position) for position in np.argsort(-difference, kind="stable")[:IMAGES]]


def right_minus_wrong(matches: Sequence[ClassMatches]) -> NDArray[np.float64]:
    """Return the right minus the wrong detections of each image at IoU 0.5 and `MIN_SCORE`, (images,)."""
    total = np.zeros(len(matches[0].objects))
    for class_matches in matches:
        counted = class_matches.score >= MIN_SCORE
        outcome = class_matches.outcome[counted, 0, 0]
        balance = (outcome == TRUE_POSITIVE).astype(float) - (outcome == FALSE_POSITIVE)
        total += np.bincount(class_matches.image[counted], balance, minlength=len(total))
    return total


def _draw_row(
    row: Sequence[Axes],
    truth: CocoFile,
    folder: Path,
    index: int,
    position: int,
    matched: Mapping[str, MatchedDetections],
) -> None:
    """Draw one image. `index` is its index in the annotation file, `position` its index in the matches."""
    image = truth.images[index]
    picture, scale = read_image(folder, image.file_name)
    for axes in row:
        axes.imshow(picture)
        hide_frame(axes)
    boxes = truth.boxes_of(index)
    for box, label in zip(boxes.xywh * scale, boxes.label, strict=True):
        _draw_box(row[0], box, truth.classes[label], _TRUTH, "-")
    _set_title(row[0], f"{len(boxes)} objects")
    for axes, detections in zip(row[1:], matched.values(), strict=True):
        _draw_detections(axes, detections, position, scale)


def _draw_detections(axes: Axes, detections: MatchedDetections, position: int, scale: float) -> None:
    right = wrong = objects = 0
    for class_matches in detections.matches:
        objects += int(class_matches.objects[position, 0])
        for number in np.flatnonzero((class_matches.image == position) & (class_matches.score >= MIN_SCORE)):
            outcome = class_matches.outcome[number, 0, 0]
            box = detections.rows[class_matches.row[number], 1:5] * scale
            acceptable = outcome != FALSE_POSITIVE
            right, wrong = right + int(outcome == TRUE_POSITIVE), wrong + int(not acceptable)
            label = f"{class_matches.name} {class_matches.score[number]:.2f}"
            _draw_box(axes, box, label, _RIGHT if acceptable else _WRONG, "-" if acceptable else "--")
    _set_title(axes, f"{right} right, {wrong} wrong, {objects - right} missed")


def _draw_box(axes: Axes, box: NDArray[np.float64], label: str, colour: str, line: str) -> None:
    axes.add_patch(Rectangle((box[0], box[1]), box[2], box[3], fill=False, edgecolor=colour, linestyle=line, lw=1.1))
    background = {"facecolor": colour, "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
    fits_above = box[1] > 0.06 * axes.get_ylim()[0]
    alignment = "bottom" if fits_above else "top"
    axes.text(
        max(0, box[0]), max(0, box[1]), label, fontsize=3.6, color="white", va=alignment, bbox=background, clip_on=True
    )


def _set_title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=6.5, pad=2)


def read_image(folder: Path, name: str) -> tuple[NDArray[np.uint8], float]:
    """Return the image as training reads it, reduced to the drawn size, and its scale.

    A grey image if it cannot be read.
    """
    try:
        image = cv2.imread(str(inside(folder, name)))
    except (cv2.error, InvalidSpec):  # more pixels than OpenCV reads; a path outside the folder
        image = None
    if image is None:
        return np.full((_MAX_SIDE, _MAX_SIDE, 3), 200, np.uint8), 1.0
    height, width = image.shape[:2]
    scale = min(1.0, _MAX_SIDE / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return picture[:, :, ::-1].astype(np.uint8), scale


def _legend_handles() -> list[Rectangle]:
    entries = {
        "object": (_TRUTH, "-"),
        f"right (IoU 0.5, score from {MIN_SCORE})": (_RIGHT, "-"),
        "wrong": (_WRONG, "--"),
    }
    return [
        Rectangle((0, 0), 1, 1, fill=False, edgecolor=colour, linestyle=line, label=text)
        for text, (colour, line) in entries.items()
    ]
