"""Strong augmentation, composed of mmdet's own transforms."""

import math
from typing import Any

from mmengine.config import Config

SCALES = (0.5, 2.0)
"""Range of the factor on an image's size, as in RTMDet."""
MIXING = ("Mosaic", "MixUp")
"""Transforms that combine an image with others of its split."""
UNMIXED = 1 / 15
"""Part of the training, at its end, without `MIXING`: 20 of RTMDet's 300 epochs, 15 of YOLOX's."""


def strong_transforms(size: tuple[int, int], mixing: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return the transforms of images with boxes into at most `size`, [width, height] in pixels, with some of `MIXING`.

    A crop may contain no box: the image is then background.
    """
    width, height = size
    mosaic = [{"type": "Mosaic", "img_scale": size}] if "Mosaic" in mixing else []
    scale = (2 * width, 2 * height) if mosaic else size  # a mosaic of four images has twice their width and height
    return [
        *mosaic,
        {"type": "RandomResize", "scale": scale, "ratio_range": SCALES, "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": size, "allow_negative_crop": True},
        *([{"type": "MixUp", "img_scale": size, "ratio_range": (0.8, 1.6)}] if "MixUp" in mixing else []),
        {"type": "FilterAnnotations", "min_gt_bbox_wh": (1, 1), "keep_empty": False},
        {"type": "PhotoMetricDistortion"},
    ]


def stock_mixing(base_config: Config) -> tuple[str, ...]:
    """Return the transforms of `MIXING` that the base config trains with, also as `CachedMosaic` or `CachedMixUp`.

    Ours have no cache: with one, an image would depend on those that the same process has loaded before.
    """
    stock: set[str] = set()
    dataset = base_config.train_dataloader.dataset
    while dataset is not None:
        stock |= {transform.type.removeprefix("Cached") for transform in dataset.get("pipeline") or ()}
        dataset = dataset.get("dataset")
    return tuple(name for name in MIXING if name in stock)


def mixed_epochs(epochs: int) -> int:
    """Return the number of epochs, from the first, with `MIXING` in a training of `epochs`."""
    return epochs - math.ceil(UNMIXED * epochs)
