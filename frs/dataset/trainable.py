"""Selection of the images and boxes that a detector is trained on: the check reports it, the loaders apply it."""

from collections import Counter
from collections.abc import Collection
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from frs.dataset.coco import CocoFile
from frs.dataset.coco_boxes import Boxes

BoxExclusion = Literal["ignored", "outside_image", "below_one_pixel", "crowd"]
"""Why training does not use a box: `ignore`, no overlap with its image, a side below one pixel, or `iscrowd`."""
ImageExclusion = Literal["no_boxes", "ignored", "outside_image", "below_one_pixel", "crowd"]
"""Why training does not use an image without issues: it has no boxes, or none that training uses."""
_REASONS: tuple[BoxExclusion, ...] = get_args(BoxExclusion)
_USED, _CROWD = 0, len(_REASONS)


def exclude_boxes(boxes: Boxes, width: Any, height: Any) -> NDArray[np.int8]:
    """Return (N,), why training does not use each box: 0 if it does, otherwise a position in `BoxExclusion`, from 1.

    These are the rules of mmdet's `CocoDataset`. `width` and `height` are the size of each box's image in pixels, as
    (N,) arrays or scalars. A box that clipping to the image makes empty would make the loss infinite.
    """
    x, y, w, h = boxes.xywh.T
    with np.errstate(over="ignore"):  # the annotated end of a box may exceed the range of a float
        inside = (np.minimum(x + w, width) > np.maximum(x, 0)) & (np.minimum(y + h, height) > np.maximum(y, 0))
    masks = [boxes.ignored, ~inside, (w < 1) | (h < 1), boxes.crowd]
    return np.select(masks, range(1, len(masks) + 1), _USED).astype(np.int8)


def trainable_boxes(boxes: Boxes, width: Any, height: Any) -> NDArray[np.bool_]:
    """Return a mask (N,) of the boxes that the loaders pass on: those used for training, and crowds, which mmdet marks.

    For the arguments see `exclude_boxes`.
    """
    reasons = exclude_boxes(boxes, width, height)
    return (reasons == _USED) | (reasons == _CROWD)


def labelled_images(coco: CocoFile, without: Collection[int]) -> list[int]:
    """Return the indices of the images used for training.

    Such an image has at least one box that training uses, and its id is not in `without`.
    """
    indices = set(np.unique(coco.boxes.image[_exclusions(coco) == _USED]).tolist())
    return [i for i, image in enumerate(coco.images) if i in indices and image.id not in without]


def background_images(coco: CocoFile, without: Collection[int]) -> list[int]:
    """Return the indices of the images without annotations whose id is not in `without`.

    An image that only has boxes which training does not use is not background: it may show objects.
    """
    annotated = set(np.unique(coco.boxes.image).tolist())
    return [i for i, image in enumerate(coco.images) if i not in annotated and image.id not in without]


def count_excluded_boxes(coco: CocoFile) -> dict[BoxExclusion, int]:
    """Return the number of boxes that training does not use, by reason."""
    counts = Counter(_exclusions(coco).tolist())
    return {reason: counts[number] for number, reason in enumerate(_REASONS, 1) if counts[number]}


def count_excluded_images(coco: CocoFile, without: Collection[int]) -> dict[ImageExclusion, int]:
    """Return the number of images that training does not use, by reason; images with ids in `without` are not counted.

    If the boxes of an image are excluded for several reasons, the first box's reason counts.
    """
    reasons, counts = _exclusions(coco), Counter[ImageExclusion]()
    used = set(labelled_images(coco, without))
    rows = np.searchsorted(coco.boxes.image, np.arange(len(coco.images)))
    for index, (image, row) in enumerate(zip(coco.images, rows, strict=True)):
        if index not in used and image.id not in without:
            has_boxes = row < len(reasons) and coco.boxes.image[row] == index
            counts[_REASONS[reasons[row] - 1] if has_boxes else "no_boxes"] += 1
    return dict(counts)


def _exclusions(coco: CocoFile) -> NDArray[np.int8]:
    sizes = np.array([(image.width, image.height) for image in coco.images]).reshape(-1, 2)
    width, height = sizes[coco.boxes.image].T
    return exclude_boxes(coco.boxes, width, height)
