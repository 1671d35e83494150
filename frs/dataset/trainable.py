"""What of a data set a detector is trained on."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frs.dataset.coco import CocoFile
from frs.dataset.coco_boxes import Boxes


def labelled_images(coco: CocoFile, without: Collection[int]) -> list[int]:
    """Indices of the images that train a detector: at least one box that is no crowd, and not left out by id."""
    width, height = (np.array([image[side] for image in coco.images])[coco.boxes.image] for side in (2, 3))
    wanted = ~coco.boxes.crowd & trainable_boxes(coco.boxes, width, height)
    boxed = set(np.unique(coco.boxes.image[wanted]).tolist())
    return [i for i, image in enumerate(coco.images) if i in boxed and image.id not in without]


def trainable_boxes(boxes: Boxes, width: Any, height: Any) -> NDArray[np.bool_]:
    """Which boxes train a detector, as stock mmdet has it: not under a pixel, not outside the image, of some area.

    The others would become empty when clipped, and make losses infinite.
    """
    x, y, w, h = boxes.xywh.T
    with np.errstate(over="ignore"):  # a box may claim to end beyond what a float holds
        inside = (np.minimum(x + w, width) > np.maximum(x, 0)) & (np.minimum(y + h, height) > np.maximum(y, 0))
    return np.asarray(inside & (boxes.area > 0) & (w >= 1) & (h >= 1))
