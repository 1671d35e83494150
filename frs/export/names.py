"""File names of the formats, and calibration images. This module imports neither torch nor onnxruntime."""

import random
from collections.abc import Iterable
from pathlib import Path

from frs.spec import ExportFormat

FILE_NAMES: dict[ExportFormat, str] = {
    "onnx": "student.onnx",
    "onnx-int8": "student-int8.onnx",
    "onnx-no-nms": "student-no-nms.onnx",
}


def calibration_images(paths: Iterable[Path], count: int, seed: int = 0) -> list[Path]:
    """Return `count` of the images, drawn with `seed`, or all if there are fewer."""
    ordered = sorted(paths)
    return random.Random(seed).sample(ordered, min(count, len(ordered)))
