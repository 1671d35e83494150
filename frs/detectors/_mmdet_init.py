"""Prepare the import of mmdet. Import this module before mmdet.

mmdet binds mmcv's operators, its `imresize` and pycocotools once, when it is first imported.
"""

import io
import logging
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import faster_coco_eval
import mmcv
from mmengine.logging import MMLogger

import mmcv_torchvision  # noqa: F401 - mmcv's operators, if the compiled ones are not installed

faster_coco_eval.init_as_pycocotools()  # same scores, ten times faster, and no error for an empty result list

MMLogger.get_instance("frs", log_level="ERROR").setLevel(logging.ERROR)  # mmengine logs how each tensor was initialised

# Only imgaug, which nothing here uses, compiles with numba; its cache needs a home or a writable installation.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")

MIN_SIDE = 2
"""Shortest side of a scaled image in pixels. mmcv rounds those of very thin images to 0, and torch refuses an image of
one column once it is flipped."""


def _with_min_side(resize: Callable[..., Any]) -> Callable[..., Any]:
    """Return mmcv's `imresize` with sides of at least `MIN_SIDE`."""

    def imresize(img: Any, size: tuple[int, int], *args: Any, **options: Any) -> Any:
        return resize(img, (max(MIN_SIDE, size[0]), max(MIN_SIDE, size[1])), *args, **options)

    return imresize


mmcv.imresize = mmcv.image.imresize = mmcv.image.geometric.imresize = _with_min_side(mmcv.image.geometric.imresize)

with redirect_stdout(io.StringIO()):  # it prints that an optional package is missing
    import mmdet.datasets  # noqa: F401
