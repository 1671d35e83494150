"""Selection of the images and boxes that a detector is trained on."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frs.dataset.coco import CocoFile
from frs.dataset.coco_boxes import Boxes


def labelled_images(coco: CocoFile, without: Collection[int]) -> list[int]:
    """Return the indices of the images used for training.

    Such an image has at least one trainable box that is not a crowd, and its id is not in `without`.
    """
    width, height = (np.array([image[side] for image in coco.images])[coco.boxes.image] for side in (2, 3))
    mask = ~coco.boxes.crowd & trainable_boxes(coco.boxes, width, height)
    indices = set(np.unique(coco.boxes.image[mask]).tolist())
    return [i for i, image in enumerate(coco.images) if i in indices and image.id not in without]


def trainable_boxes(boxes: Boxes, width: Any, height: Any) -> NDArray[np.bool_]:
    """Return a mask (N,) of the boxes used for training, by mmdet's rule.

    Such a box is at least one pixel wide and high, overlaps the image and has an annotated area above 0. `width` and
    `height` are the size of each box's image in pixels, as (N,) arrays or scalars. Any other box would become empty
    when clipped to the image, and the loss infinite.
    """
    x, y, w, h = boxes.xywh.T
    with np.errstate(over="ignore"):  # the annotated end of a box may exceed the range of a float
        inside = (np.minimum(x + w, width) > np.maximum(x, 0)) & (np.minimum(y + h, height) > np.maximum(y, 0))
    return np.asarray(inside & (boxes.area > 0) & (w >= 1) & (h >= 1))
